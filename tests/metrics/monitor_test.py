import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax import trees
from sbjax.metrics import replica
from sbjax.metrics.monitor import Loss, make_replica_monitor

KEY = jax.random.key(3)
KINDS = ("unmatched", "marginal", "neuron_cloud", "function")
FORMS = ("", "_null", "_excess", "_scale_free", "_scale_free_null", "_scale_free_excess")


def variables(seed=0, replicas=4):
    rng = np.random.default_rng(seed)
    params = {"dense": {"kernel": rng.normal(size=(replicas, 3, 5)), "bias": rng.normal(size=(replicas, 5))}}
    stats = {"dense": {"mean": rng.normal(size=(replicas, 5))}}
    return jax.tree.map(np.float32, {"params": params, "batch_stats": stats})


def outputs(variables):
    return jnp.tanh(variables["params"]["dense"]["kernel"].sum(0) - variables["batch_stats"]["dense"]["mean"])


def make(kinds=KINDS, **options):
    return make_replica_monitor(kinds, **{"key": KEY, "outputs_fn": outputs} | options)


@pytest.fixture(scope="module")
def monitor():
    return make()


@pytest.mark.parametrize("kinds", [["marginal"], ["neuron_cloud", "unmatched"], ["function", "marginal"]])
def test_names(kinds):
    monitor = make(kinds)
    names = [f"replica_distance/{kind}{form}" for kind in kinds for form in FORMS]
    assert list(monitor.summarise(monitor.init(variables()))) == names
    assert list(monitor.summarise(monitor.update(monitor.init(variables()), 1, variables()))) == names


def test_nothing_is_known_before_the_first_update(monitor):
    state = monitor.init(variables())
    assert state["step"] == -1
    assert np.isnan(list(monitor.summarise(state).values())).all()


def test_the_state_has_one_shape():
    """Also without values, as a checkpoint is restored, and with fewer replicas."""
    monitor = make(["unmatched", "function"])
    abstract = jax.eval_shape(monitor.init, jax.eval_shape(lambda: variables()))
    states = [monitor.init(variables())]
    states += [monitor.update(states[-1], step, variables(step, replicas)) for step, replicas in ((2, 4), (9, 3))]
    for state in states:
        assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(lambda x: (x.shape, x.dtype), abstract)
    assert states[-1]["step"] == 9


def test_pure(monitor):
    state, tree = monitor.init(variables()), variables()
    before = jax.tree.map(np.copy, (state, tree))
    first, second = (monitor.update(state, 5, tree) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, before, (state, tree))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    later = monitor.update(first, 5, tree)  # nothing is carried over
    jax.tree.map(np.testing.assert_array_equal, later, first)
    assert monitor.summarise(first) == monitor.summarise(first)
    jax.tree.map(np.testing.assert_array_equal, before[0], state)


@pytest.mark.parametrize("solver", ["sliced", "assignment"])
def test_values_are_those_of_the_distances(solver):
    tree, monitor = variables(), make(solver=solver)
    key, params = jax.random.fold_in(KEY, 7), tree["params"]
    null = {**tree, "params": replica.null_replicas(params, key=key)}
    expected = {
        "unmatched": replica.unmatched_distance(params, key=key),
        "marginal": replica.marginal_distance(params, key=key),
        "neuron_cloud": replica.neuron_cloud_distance(params, solver=solver, key=key),
        "function": replica.function_distance(jax.vmap(outputs)(tree), jax.vmap(outputs)(null)),
    }
    found = monitor.summarise(monitor.update(monitor.init(tree), 7, tree))
    for kind, distance in expected.items():
        readings = [*distance.raw.total, *distance.scale_free.total]
        for form, reading in zip(FORMS, readings, strict=True):
            np.testing.assert_allclose(found[f"replica_distance/{kind}{form}"], reading, rtol=1e-4, atol=1e-5)


def test_the_null_is_drawn_anew_at_every_step(monitor):
    one, two = (monitor.summarise(monitor.update(monitor.init(variables()), step, variables())) for step in (1, 2))
    for kind in KINDS:
        assert one[f"replica_distance/{kind}"] == two[f"replica_distance/{kind}"]
        assert one[f"replica_distance/{kind}_null"] != two[f"replica_distance/{kind}_null"]


@pytest.mark.parametrize(
    ("kinds", "options", "words"),
    [
        (
            ["unmatchd"],
            {},
            "kinds='unmatchd' is unknown, did you mean 'unmatched'.*known: unmatched, marginal.*matched",
        ),
        ([], {}, "kinds=none must name at least one"),
        (["marginal", "marginal"], {}, "none twice"),
        (["function"], {"outputs_fn": None}, "kinds='function' compares outputs and needs outputs_fn; leave it out"),
        (["matched"], {}, "kinds='matched' permutes hidden units and needs apply_fn and inputs"),
        (["neuron_cloud"], {"solver": "slicd"}, "solver='slicd' is unknown, did you mean 'sliced'.*assignment"),
    ],
)
def test_refusals(kinds, options, words):
    with pytest.raises(ValueError, match=words):
        make(kinds, **options)


def test_non_finite_parameters_are_refused(monitor):
    tree = variables()
    tree["params"]["dense"]["bias"][2, 0] = np.nan
    with pytest.raises(ValueError, match="leaf 'dense/bias' has 1 entries"):
        monitor.update(monitor.init(tree), 1, tree)


@pytest.mark.parametrize("diverged", [1, 3])
def test_outputs_that_overflow_do_not_stop_a_run(monitor, diverged):
    tree = variables()
    tree["batch_stats"]["dense"]["mean"][:diverged] = np.nan
    found = monitor.summarise(monitor.update(monitor.init(tree), 1, tree))
    names = [f"replica_distance/function{form}" for form in FORMS]
    values = {name: estimate.value for name, estimate in found.items()}
    assert np.isfinite([value for name, value in values.items() if name not in names]).all()
    if diverged == 3:
        assert np.isnan([values[name] for name in names]).all()
    else:
        alone = replica.function_distance(jax.vmap(outputs)(jax.tree.map(lambda x: x[1:], tree)))
        assert values["replica_distance/function"] == pytest.approx(alone.raw.total.distance.value, rel=1e-4)


def perceptron(variables, x):
    """Two hidden layers; frozen constants are added to the first kernel."""
    params = variables["params"]
    first = params["a"] + variables.get("frozen", {}).get("c", 0.0)
    return jnp.tanh(jnp.tanh(x @ first) @ params["b"]) @ params["d"]


def shuffled(replicas=4, noise=0.0, seed=0):
    """One network in random orders of its hidden units, plus noise."""
    rng = np.random.default_rng(seed)
    a, b, d = rng.normal(size=(3, 5)), rng.normal(size=(5, 4)), rng.normal(size=(4, 2))
    found = []
    for _ in range(replicas):
        p, q = rng.permutation(5), rng.permutation(4)
        found.append({"a": a[:, p], "b": b[p][:, q], "d": d[q]})
    noisy = jax.tree.map(
        lambda *leaves: np.stack(leaves) + noise * rng.normal(size=(replicas, *leaves[0].shape)), *found
    )
    return {"params": jax.tree.map(np.float32, noisy)}


def readings(tree, kinds=("matched", "unmatched")):
    monitor = make_replica_monitor(list(kinds), key=KEY, apply_fn=perceptron, inputs=jnp.ones((2, 3)))
    return {name: estimate.value for name, estimate in monitor.summarise(monitor.update(None, 5, tree)).items()}


def test_matched_removes_the_order_of_hidden_units():
    found = readings(shuffled())
    assert found["replica_distance/unmatched"] > 0.5
    assert found["replica_distance/matched"] == pytest.approx(0, abs=1e-6)
    assert found["replica_distance/matched_scale_free"] == pytest.approx(0, abs=1e-6)
    assert 0 < found["replica_distance/matched_null"] < found["replica_distance/unmatched_null"]
    assert found["replica_distance/matched_excess"] == pytest.approx(-found["replica_distance/matched_null"], abs=1e-6)


def test_matched_looks_at_the_first_replicas_only():
    """Six of eight, whatever the others are."""
    many = shuffled(8, noise=0.1)
    broken = jax.tree.map(np.copy, many)
    broken["params"]["a"][6:] *= 100
    assert readings(many, ["matched"]) == readings(broken, ["matched"])


def test_matched_with_frozen_constants():
    """The weights that the network computes with are matched, and constants stay: they are no copies of each other."""
    tree = shuffled()
    fixed = np.random.default_rng(1).normal(size=(4, 3, 5)).astype(np.float32)
    tree["frozen"] = {"asymmetry": {"fixed": {"a": fixed}}, "c": np.zeros((4, 3, 5), np.float32)}
    with_constants = readings(tree)
    assert with_constants["replica_distance/matched"] > 0.1
    weights = {"params": {**tree["params"], "a": tree["params"]["a"] + fixed}}
    assert with_constants["replica_distance/matched"] == pytest.approx(readings(weights)["replica_distance/matched"])


def test_matched_without_hidden_units_is_unmatched():
    tree = {"params": {"w": np.random.default_rng(0).normal(size=(4, 3, 2)).astype(np.float32)}}
    monitor = make_replica_monitor(
        ["matched", "unmatched"], key=KEY, apply_fn=lambda v, x: x @ v["params"]["w"], inputs=jnp.ones((2, 3))
    )
    found = monitor.summarise(monitor.update(None, 1, tree))
    np.testing.assert_allclose(
        found["replica_distance/matched"].value, found["replica_distance/unmatched"].value, rtol=1e-6
    )


def squared(variables, batch):
    return jnp.mean((perceptron(variables, batch) - 1) ** 2)


def numbers_monitor(kinds=("sharpness", "breaking"), **options):
    shapes = jax.eval_shape(lambda: trees.take(shuffled(), 0))
    loss = Loss(squared, lambda: [jnp.ones((2, 3)), jnp.eye(3)[:2]], products=30)
    given = {"apply_fn": perceptron, "inputs": jnp.ones((2, 3)), "shapes": shapes, "loss": loss}
    return make_replica_monitor(kinds, key=KEY, **given | options)


def test_numbers_of_each_replica():
    """Copies up to the order of their units have one sharpness and one distance, with or without other replicas."""
    monitor = numbers_monitor()
    names = ["permutation", "permutation_share", "pair", "unit"]
    found = monitor.numbers(shuffled())
    assert list(found) == ["train/sharpness", *(f"symmetry/{name}" for name in names)]
    for values in found.values():
        assert values.shape == (4,)
        np.testing.assert_allclose(values, values[0], rtol=1e-4)
    for name, values in monitor.numbers(trees.take(shuffled(), slice(1, 3))).items():
        assert (values == found[name][1:3]).all()
    one = trees.take(shuffled(), 0)["params"]
    flat, unravel = jax.flatten_util.ravel_pytree(one)
    dense = jax.hessian(
        lambda w: sum(squared({"params": unravel(w)}, batch) for batch in (jnp.ones((2, 3)), jnp.eye(3)[:2])) / 2
    )(flat)
    np.testing.assert_allclose(found["train/sharpness"][0], np.linalg.eigvalsh(dense)[-1], rtol=1e-4)


def test_numbers_beside_distances_and_without():
    """Numbers are not kept: the state is that of the distances, and has no array without entries."""
    alone, both = numbers_monitor(), numbers_monitor(("unmatched", "breaking"))
    assert set(alone.init(shuffled())) == {"step"}
    assert alone.summarise(alone.update(alone.init(shuffled()), 3, shuffled())) == {}
    assert next(iter(both.summarise(both.init(shuffled())))) == "replica_distance/unmatched"
    assert next(iter(both.numbers(shuffled()))) == "symmetry/permutation"
    assert make().numbers is None


def test_breaking_with_frozen_constants_is_that_of_the_weights():
    tree = shuffled()
    fixed = np.random.default_rng(1).normal(size=tree["params"]["a"].shape).astype(np.float32)
    weights = {"params": {**tree["params"], "a": tree["params"]["a"] + fixed}}
    tree["frozen"] = {"asymmetry": {"fixed": {"a": fixed}}}
    shapes = jax.eval_shape(lambda: trees.take(tree, 0))
    found = numbers_monitor(("breaking",), shapes=shapes).numbers(tree)
    for name, values in numbers_monitor(("breaking",)).numbers(weights).items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6)


@pytest.mark.parametrize(
    ("kinds", "options", "words"),
    [
        (["sharpness"], {"loss": None}, "kinds='sharpness' needs loss and shapes; leave it out for tasks without"),
        (["sharpness"], {"loss": Loss(squared, list, 1)}, "kinds='sharpness': products=1 must be >= 2"),
        (["breaking"], {"apply_fn": None}, "kinds='breaking' looks at hidden units and needs apply_fn"),
        (
            ["breaking"],
            {"apply_fn": lambda v, x: x @ v["params"]["a"]},
            "kinds='breaking': this network has no hidden units that can be permuted.*leave it out",
        ),
        (["breaking", "breaking"], {}, "none twice"),
    ],
)
def test_refusals_of_numbers(kinds, options, words):
    with pytest.raises(ValueError, match=words):
        numbers_monitor(kinds, **options)
