"""Equations as tasks: the same loss by every derivative mode, points, weights, controls, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sbjax import trees
from sbjax.expansion.folding import fold
from sbjax.expansion.transform import VectorExpansion
from sbjax.models import make_field
from sbjax.optimizers import OPTIMIZERS, Adam
from sbjax.optimizers.rescaled import rescaled
from sbjax.physics.equation import make_residual
from sbjax.physics.pdes import EQUATIONS, make_equation
from sbjax.tasks import balance as balance_lib
from sbjax.tasks.pinn import Points, make_pinn_task
from sbjax.training.checkpoint import Checkpoints
from sbjax.training.fit import Hooks, Phase, fit
from sbjax.training.placement import Placement

PI = VectorExpansion(2, 2)
FEW = Points(interior=40, boundary=8, initial=8)
KEY = jax.random.key(3)


def make_task(name="heat", *, dtype="float64", model=None, expansion=None, points=FEW, **options):
    equation = make_equation(name)
    field = make_field(
        "field",
        unknowns=len(equation.unknowns),
        lower=equation.lower,
        upper=equation.upper,
        expansion=expansion,
        dtype=dtype,
        x64=True,
        **{"widths": (8, 8), **(model or {})},
    )
    return make_pinn_task(equation, field, points=points, **{"test_points": 64, **options})


def draw(task, step=0):
    return task.init(KEY), task.sample(task.data, KEY, step)


@pytest.fixture(autouse=True)
def double(x64):
    """All of this file is in double precision unless a dtype is given."""


# Residuals


def modes_of(name, hard, of_task, modes=("mlp", "forward")):
    """What `of_task(task, variables, batch)` gives in each mode."""
    if hard and make_equation(name).ansatz is None:
        pytest.skip("no ansatz")
    model, found = {"normalise": True, "widths": (6,)}, {}
    for mode in modes:
        task = make_task(name, model=model, expansion=PI, derivatives=mode, hard=hard, points=Points(12, 4, 4))
        found[mode] = of_task(task, *draw(task))
    return found


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("name", "hard"),
    [(name, False) for name in EQUATIONS]
    + [pytest.param(name, True, marks=() if name == "burgers" else pytest.mark.extended) for name in EQUATIONS],
)
def test_every_mode_gives_the_same_residuals(name, hard):
    found = modes_of(name, hard, lambda task, *at: jax.jit(task.residuals)(*at, KEY))
    scale = float(jnp.abs(found["forward"]).max())
    np.testing.assert_allclose(found["mlp"], found["forward"], atol=1e-12 * scale)


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("name", "hard"), [("kovasznay", False), ("euler_beam", True)])
def test_every_mode_gives_the_same_gradient(name, hard):
    def gradient(task, variables, batch):
        return jax.jit(jax.grad(lambda p: task.loss({**variables, "params": p}, batch, KEY)[0]))(variables["params"])

    found = modes_of(name, hard, gradient, ("mlp", "forward", "nested"))
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(found["nested"]))
    for mode in ("mlp", "forward"):
        for a, b in zip(jax.tree.leaves(found[mode]), jax.tree.leaves(found["nested"])):
            np.testing.assert_allclose(a, b, atol=1e-11 * scale)


def test_the_loss_is_what_its_terms_say():
    """By an independent route: point by point from the equation's own functions."""
    task = make_task("heat", weights={"initial_u": 10.0})
    equation, (variables, batch) = make_equation("heat"), draw(task)
    params = variables["params"]

    def u_fn(x):
        for i in range(2):
            x = jnp.tanh(x @ params[f"dense_{i}"]["kernel"] + params[f"dense_{i}"]["bias"])
        return x @ params["dense_2"]["kernel"] + params["dense_2"]["bias"]

    value, aux = task.loss(variables, batch, KEY)
    interior = np.mean([float(make_residual(equation)(u_fn, x)["equation"]) ** 2 for x in batch["interior"]])
    boundary = np.mean([float(u_fn(x)[0]) ** 2 for x in batch["u_on_x"]])
    initial = np.mean([float(u_fn(x)[0] - np.sin(np.pi * x[0])) ** 2 for x in batch["initial_u"]])
    assert set(aux.scalars) == {"train/loss_equation", "train/loss_u_on_x", "train/loss_initial_u"}
    np.testing.assert_allclose(value, interior + boundary + 10 * initial, rtol=1e-12)
    np.testing.assert_allclose(aux.scalars["train/loss_initial_u"], initial, rtol=1e-12)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("balance", balance_lib.BALANCES)
def test_residuals_are_the_loss_as_a_sum_of_squares(balance):
    task = make_task("wave", balance=balance, weights={"equation": 0.1})
    variables, batch = draw(task)
    if balance != "fixed":
        weights = jax.tree.map(lambda w: w * jnp.linspace(1, 2, w.size).reshape(w.shape) + 0.5, variables["weights"])
        variables = {**variables, "weights": weights}
    value, _ = task.loss(variables, batch, KEY)
    np.testing.assert_allclose(jnp.sum(task.residuals(variables, batch, KEY) ** 2), value, rtol=1e-12)


@pytest.mark.extended
def test_random_features_and_other_activations():
    for model in ({"features": 5}, {"activation": "silu"}):
        task = make_task("heat", model=model)
        variables, batch = draw(task)
        assert np.isfinite(task.loss(variables, batch, KEY)[0])
    assert draw(make_task("heat", model={"features": 5}))[0]["frozen"]["frequencies"].shape == (2, 5)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_goes_all_the_way(dtype):
    task = make_task("burgers", dtype=dtype, balance="gradient_norm", points=FEW._replace(sampler="adaptive", every=2))
    variables, batch = draw(task)
    value, aux = task.loss(variables, batch, KEY)
    for leaf in jax.tree.leaves((variables, value, aux, task.evaluate(task.data, variables, 0))):
        assert leaf.dtype == dtype


# The controls


@pytest.mark.extended
@pytest.mark.parametrize(
    ("name", "rate", "scale", "steps", "tolerance"),
    [
        # SGD: the bias moves 1 + |c|^2 times as far, since its coordinate is sqrt(1 + |c|^2) times smaller.
        ("sgd", 1e-3, np.sqrt(1 + 4 * np.pi**2), 60, 1e-11),
        # Adam's step does not know the size of a gradient, so it moves 1 + sum |c| times as far (to its epsilon).
        pytest.param("adam", 1e-3, 1 + 4 * np.pi, 20, 1e-4, marks=pytest.mark.extended),
        pytest.param("lbfgs", 0.0, np.sqrt(1 + 4 * np.pi**2), 15, 1e-7, marks=pytest.mark.extended),
    ],
)
def test_matched_bias_coincides_with_the_expansion(name, rate, scale, steps, tolerance):
    """The expansion of a dense first layer is a start and a step size of its bias, and nothing else."""

    def train(task, optimizer):
        return fit(
            task, optimizer, steps=steps, replicas=2, key=KEY, reports=1, placement=Placement(devices=1)
        ).variables

    options = OPTIMIZERS[name](weight_decay=0.0, nesterov=False) if name == "sgd" else OPTIMIZERS[name]()
    assert options.first_bias_unit(PI.constants) == pytest.approx(scale, rel=1e-12)  # what a config that says 0 gets
    optimizer = options.make(rate)

    def scales(params):
        ones = jax.tree.map(lambda _: 1.0, params)
        return ones | {"dense_0": ones["dense_0"] | {"bias": scale}}

    expanded = train(make_task(expansion=PI), optimizer)["params"]
    matched = train(make_task(expansion=PI, fold=True), rescaled(optimizer, scales))["params"]
    folded = jax.vmap(lambda params: fold(PI, params))(expanded)
    start = jax.vmap(lambda i: fold(PI, make_task(expansion=PI).init(jax.random.fold_in(KEY, i))["params"]))(
        jnp.arange(2)
    )
    moved = max(float(jnp.abs(a - b).max()) for a, b in zip(jax.tree.leaves(folded), jax.tree.leaves(start)))
    assert moved > 1e-3
    for path, leaf in trees.flatten(folded).items():
        np.testing.assert_allclose(trees.flatten(matched)[path], leaf, atol=tolerance, rtol=tolerance, err_msg=path)
    # Without the step size it is something else: the test can fail.
    other = train(make_task(expansion=PI, fold=True), optimizer)["params"]
    assert float(jnp.abs(other["dense_0"]["bias"] - folded["dense_0"]["bias"]).max()) > 10 * tolerance


def test_derivatives_are_by_the_true_coordinates():
    """An expanded network and its folded form are one function, so their residuals agree."""
    expanded, folded = make_task("kdv", expansion=PI), make_task("kdv", expansion=PI, fold=True)
    (variables, batch), (raw, _) = draw(expanded), draw(folded)
    assert raw["params"]["dense_0"]["kernel"].shape == (2, 8)
    np.testing.assert_allclose(
        expanded.residuals(variables, batch, KEY), folded.residuals(raw, batch, KEY), rtol=1e-9, atol=1e-10
    )


# Points


@pytest.mark.parametrize("sampler", ["uniform", "sobol", "lhs"])
def test_points_lie_where_they_should(sampler):
    equation = make_equation("burgers")
    task = make_task("burgers", points=Points(100, 10, 12, sampler, every=3))
    batch = task.sample(task.data, KEY, 0)
    assert batch["interior"].shape == (100, 2)
    for name, points in batch.items():
        if name != "step":
            assert (points >= np.array(equation.lower)).all()
            assert (points <= np.array(equation.upper)).all()
    assert sorted(batch["u_on_x"][:, 0].tolist()) == [-1.0] * 5 + [1.0] * 5
    assert (batch["initial_u"][:, 1] == 0).all()
    same, later = (task.sample(task.data, KEY, step) for step in (2, 3))
    assert (same["interior"] == batch["interior"]).all()
    assert not (later["interior"] == batch["interior"]).any()
    other = task.sample(task.data, jax.random.key(4), 0)
    assert not (other["interior"] == batch["interior"]).any()


@pytest.mark.parametrize("sampler", ["sobol", "lhs"])
def test_designs_fill_evenly(sampler):
    """64 points leave no sixteenth of an axis empty, shifted or not; uniform ones hold four there on average."""
    task = make_task("heat", points=Points(64, 8, 8, sampler))
    batch = task.sample(task.data, KEY, 0)
    for axis in range(2):
        counts, _ = np.histogram(batch["interior"][:, axis], bins=16, range=(0, 1))
        assert counts.min() >= 3
        assert counts.max() <= 5


def test_draws_end_where_the_second_phase_begins():
    task = make_task("heat", points=FEW._replace(every=2, steps=4))
    points = [task.sample(task.data, KEY, step)["interior"] for step in range(8)]
    assert not (points[1] == points[2]).any()
    for later in points[4:]:
        assert (later == points[3]).all()


def test_one_dimensional_faces_are_single_points():
    batch = make_task("euler_beam").sample(make_task("euler_beam").data, KEY, 0)
    assert batch["u_on_x_lower"].shape == (1, 1)
    batch = make_task("poisson").sample(make_task("poisson").data, KEY, 0)
    assert batch["u_on_x"].tolist() == [[-1.0], [1.0]]


def test_adaptive_points_go_where_the_residual_is():
    """Against the law they are drawn by: with c = 1 and k = 1 half of them follow |r|."""
    task = make_task("heat_multimode", points=Points(4000, 8, 8, "adaptive", every=2))
    variables, batch = draw(task)
    _, aux = task.loss(variables, {**batch, "step": jnp.int32(0)}, KEY)
    assert (aux.updates["points"]["interior"] == variables["points"]["interior"]).all()
    _, aux = task.loss(variables, {**batch, "step": jnp.int32(1)}, KEY)
    moved = aux.updates["points"]["interior"]

    def mean_residual(points):
        found = task.residuals({**variables, "points": {"interior": points}}, batch, KEY)[: len(points)]
        return float(jnp.abs(found).mean())

    before, after = mean_residual(variables["points"]["interior"]), mean_residual(moved)
    assert after > 1.1 * before
    assert len(np.unique(np.asarray(moved), axis=0)) == 4000


# Weights


def test_gradient_norm_weights_by_hand():
    task = make_task("heat", balance="gradient_norm", balance_every=2)
    variables, batch = draw(task)
    _, aux = task.loss(variables, {**batch, "step": jnp.int32(1)}, KEY)
    norms = {}
    for name in variables["weights"]:
        gradient = jax.grad(
            lambda p, name=name: task.loss({**variables, "params": p}, batch, KEY)[1].scalars[f"train/loss_{name}"]
        )(variables["params"])
        norms[name] = float(optax.tree.norm(gradient))
    for name, norm in norms.items():
        expected = 0.9 + 0.1 * sum(norms.values()) / norm
        np.testing.assert_allclose(aux.updates["weights"][name], expected, rtol=1e-10)
    _, aux = task.loss(variables, {**batch, "step": jnp.int32(0)}, KEY)
    assert all(weight == 1 for weight in aux.updates["weights"].values())


def test_self_adaptive_weights_rise_with_the_residual():
    task = make_task("heat", balance="self_adaptive", balance_steps=5)
    variables, batch = draw(task)
    _, aux = task.loss(variables, batch, KEY)
    found = task.residuals(variables, batch, KEY)[:40] * np.sqrt(40)
    np.testing.assert_allclose(aux.updates["weights"]["equation"], 1 + 1e-3 * found**2, rtol=1e-10)
    _, aux = task.loss(variables, {**batch, "step": jnp.int32(5)}, KEY)
    assert (aux.updates["weights"]["equation"] == 1).all()


# Training


@pytest.mark.extended
@pytest.mark.parametrize("name", ["ssbroyden", pytest.param("gauss_newton", marks=pytest.mark.extended)])
def test_poisson_is_solved(name):
    """Relative L2 against the exact solution, on points that were not trained on."""
    task = make_task("poisson", points=Points(32), hard=True, model={"widths": (12, 12)}, test_points=200)
    fitted = fit(
        task,
        Adam().make(3e-3),
        steps=200,
        second_phase=Phase(OPTIMIZERS[name]().make(), 300),
        replicas=2,
        key=KEY,
        reports=2,
        placement=Placement(devices=1),
    )
    assert [record["step"] for record in fitted.history] == [0, 200, 250, 500]
    assert max(fitted.history[-1]["test/l2"]) < 1e-5
    assert min(fitted.history[1]["test/l2"]) > 1e-5
    assert fitted.programs == 2


@pytest.mark.extended
def test_two_phases_resume_to_the_same_bytes(tmp_path):
    """Stopped where the first phase ends and in the second; points and weights that move are in the state."""

    def train(folder=None, until=10**6):
        task = make_task(
            "poisson",
            balance="gradient_norm",
            balance_every=3,
            points=Points(20, sampler="adaptive", every=4),
            model={"widths": (5,)},
        )
        at = [0]
        hooks = Hooks(on_pulse=lambda step, *_: at.__setitem__(0, step), stop=lambda: at[0] >= until)
        checkpoints = None if folder is None else Checkpoints(folder)
        return fit(
            task, Adam().make(1e-2), steps=10, second_phase=Phase(OPTIMIZERS["ssbroyden"]().make(), 8),
            replicas=2, key=KEY, reports=9, checkpoints=checkpoints, hooks=hooks, placement=Placement(devices=1),
        )  # fmt: skip

    whole = train()
    stopped = [train(tmp_path / "run", until).step for until in (10, 13)]
    assert 10 == stopped[0] < stopped[1] < 18
    resumed = train(tmp_path / "run")
    assert resumed.history == whole.history
    for a, b in zip(jax.tree.leaves(whole.variables), jax.tree.leaves(resumed.variables)):
        assert a.tobytes() == b.tobytes()


def test_held_out_errors_are_against_the_reference():
    equation = make_equation("kovasznay")
    task = make_task("kovasznay", test_points=500)
    variables, _ = draw(task)
    numbers = {name: float(average.total) for name, average in task.evaluate(task.data, variables, 0).items()}
    from sbjax.physics.equation import evaluate

    points = np.asarray(task.data["test"])
    predicted = np.asarray(
        jax.vmap(lambda x: make_field(
            "field", unknowns=3, lower=equation.lower, upper=equation.upper, widths=(8, 8), dtype="float64", x64=True
        ).apply(variables, x))(points)
    )  # fmt: skip
    gap = predicted - evaluate(equation, points)
    l2 = np.linalg.norm(gap, axis=0) / np.linalg.norm(evaluate(equation, points), axis=0)
    np.testing.assert_allclose([numbers[f"test/l2_{u}"] for u in "uvp"], l2, rtol=1e-10)
    np.testing.assert_allclose(numbers["test/l2"], np.sqrt(np.mean(l2**2)), rtol=1e-10)
    np.testing.assert_allclose(numbers["test/max_v"], np.abs(gap[:, 1]).max(), rtol=1e-10)


@pytest.mark.extended
def test_a_residual_that_is_not_finite_is_named():
    task = make_task("heat")
    # The boundary condition blows up for one replica alone, from step 3 on.
    original = task.sample

    def sample(data, key, step):
        batch = original(data, key, step)
        return {**batch, "u_on_x": jnp.where(step >= 3, jnp.nan, batch["u_on_x"])}

    failures = []
    fit(
        task._replace(sample=sample),
        Adam().make(1e-3),
        steps=6,
        replicas=1,
        key=KEY,
        reports=1,
        hooks=Hooks(on_failure=lambda failure, evidence: failures.append((failure, evidence))),
    )
    (failure, evidence), *_ = failures
    assert failure.step == 3
    assert "train/loss_u_on_x" in failure.what
    assert "train/loss_equation" not in failure.what
    assert "batch/u_on_x" in evidence


# Refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points": Points(0)}, "points=0 must be >= 1"),
        ({"points": FEW._replace(boundary=0)}, "boundary_points=0 must be >= 1"),
        ({"points": FEW._replace(sampler="sobl")}, "'sobl' is unknown, did you mean 'sobol'"),
        ({"points": FEW._replace(sampler="adaptive")}, "set every > 0"),
        ({"balance": "gradient_norms"}, "did you mean 'gradient_norm'"),
        ({"balance": "self_adaptive", "points": FEW._replace(every=5)}, "cannot be resampled every 5"),
        ({"weights": {"initial": 1.0}}, "'initial' is no term of the loss, did you mean 'initial_u'"),
        ({"derivatives": "reverse"}, "derivatives='reverse' is unknown"),
        ({"derivatives": "mlp", "model": {"activation": "silu"}}, "not tanh or sin"),
        ({"name": "poisson_nd", "hard": True}, "has no ansatz"),
    ],
)
def test_refusals_name_field_value_and_remedy(options, message):
    with pytest.raises(ValueError, match=message):
        make_task(**options)


def test_a_network_of_other_outputs_is_refused():
    equation = make_equation("kovasznay")
    field = make_field("field", unknowns=1, lower=equation.lower, upper=equation.upper)
    with pytest.raises(ValueError, match="1 outputs, kovasznay the unknowns u, v, p: it needs 3"):
        make_pinn_task(equation, field)
