import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbjax.metrics import replica
from sbjax.metrics.monitor import KINDS, make_replica_monitor

KEY = jax.random.key(3)
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
        (["unmatchd"], {}, "kinds: 'unmatchd' is unknown, did you mean 'unmatched'.*known: unmatched, marginal"),
        ([], {}, r"kinds=\[\] must name at least one kind"),
        (["marginal", "marginal"], {}, "none twice"),
        (["function"], {"outputs_fn": None}, "'function' compares outputs and needs outputs_fn; leave it out"),
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
