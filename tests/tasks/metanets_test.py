"""The task of metanetworks: splits, standardised inputs, targets, regressions by other routes, permuted units."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from sbjax.metanets import make_reading
from sbjax.models import make_metanet
from sbjax.optimizers import Adam
from sbjax.symmetry import spec_from_axes
from sbjax.tasks import metanets as lib
from sbjax.training import fit as fit_lib
from sbjax.training.checkpoint import Checkpoints

TREE = {"a": np.zeros((5, 3)), "b": np.zeros(3), "c": np.zeros((3, 2))}
SPEC = spec_from_axes({"a": (None, "p"), "b": ("p",), "c": ("p", None)}, TREE)
COUNT = 60


@functools.cache
def nets(mask=False):
    """Networks whose accuracy is a function of their weights, permutations aside, and of a hyper-parameter."""
    rng = np.random.default_rng(0)
    params = {name: rng.normal(size=(COUNT, *leaf.shape)).astype(np.float32) for name, leaf in TREE.items()}
    rate = rng.uniform(0.01, 1, COUNT)
    params["b"] = params["b"] * rate[:, None].astype(np.float32)
    accuracy = 1 / (1 + np.exp(-params["a"].mean((1, 2)) - np.log(rate)))
    reading = make_reading(SPEC, TREE, {"a": np.arange(15).reshape(5, 3) % 4 > 0} if mask else None)
    return lib.make_nets(reading, params, {"rate": rate}, accuracy)


def task(name="flat", own=None, mask=False, **options):
    small = {"functional": {"channels": (4,), "head": (4,)}, "flat": {"widths": (8,)}, "statistics": {"widths": (8,)}}
    own = own or nets(mask)
    module = make_metanet(name, outputs=1, reading=own.reading, **small.get(name, {}))
    return lib.make_metanet_task(own, module, **{"batch_size": 10, **options})


def test_parts_and_order_of_networks():
    made = task()
    parts = lib.parts_of(COUNT, 0.5)
    np.testing.assert_allclose(made.data["targets"].mean(), 0, atol=1e-6)
    np.testing.assert_allclose(made.data["targets"].std(), 1, atol=1e-6)
    y = nets().accuracy
    wanted = (y[30:] - y[:30].mean()) / y[:30].std()
    np.testing.assert_allclose(made.data["held_targets"], wanted, rtol=1e-5)
    assert (parts.validation, parts.test) == (slice(30, 45), slice(45, 60))
    assert made.epoch_steps == 3
    key = jax.random.key(0)
    rows = [made.sample(made.data, key, jnp.int32(step))["targets"] for step in range(3)]
    np.testing.assert_allclose(np.sort(np.concatenate(rows)), np.sort(made.data["targets"]), rtol=1e-6)


@pytest.mark.parametrize("name", ["flat", "statistics", "hyperparameters"])
def test_inputs_are_standardised_on_training_networks_alone(name):
    made, own = task(name), nets()
    x = np.asarray(made.data["inputs"], float)
    groups = own.reading.leaves if name == "flat" else np.arange(x.shape[1])
    for group in np.unique(groups):
        np.testing.assert_allclose([x[:, groups == group].mean(), x[:, groups == group].std()], [0, 1], atol=1e-5)
    changed = own._replace(entries=own.entries.copy(), columns=own.columns.copy())
    changed.entries[30:] *= 7
    changed.columns[30:] *= 7
    np.testing.assert_array_equal(task(name, changed).data["inputs"], made.data["inputs"])
    assert np.abs(np.asarray(task(name, changed).data["held_inputs"]) - made.data["held_inputs"]).max() > 0.1


def test_entries_that_are_not_read_are_zero():
    x = np.asarray(task(mask=True).data["inputs"])
    kept = nets(True).reading.kept
    assert kept.sum() == 24 - 4
    assert not x[:, ~kept].any()
    assert x[:, kept].all()


@pytest.mark.parametrize("name", ["functional", "statistics", "flat"])
def test_evaluation_by_scipy(name):
    """And permuted test networks are read alike by those that see no order of units, and by no other."""
    made = task(name, eval_batch_size=7)
    variables = jax.jit(made.init)(jax.random.key(0))
    found = {n: float(x.value) for n, x in jax.jit(made.evaluate)(made.data, variables, jnp.int32(0)).items()}
    run = jax.jit(lambda v, x: made.model.apply(v, x, train=False)[:, 0])
    p, y = np.asarray(run(variables, made.data["held_inputs"]), float), np.asarray(made.data["held_targets"], float)
    for side, rows in (("validation", slice(0, 15)), ("test", slice(15, 30))):
        assert found[f"{side}/tau"] == pytest.approx(scipy.stats.kendalltau(y[rows], p[rows]).statistic, abs=1e-5)
        error = ((y[rows] - p[rows]) ** 2).mean() / y[rows].var()
        assert found[f"{side}/r2"] == pytest.approx(1 - error, rel=1e-4)
    moved = np.abs(p[30:] - p[15:30]).max()
    assert moved > 1e-2 if name == "flat" else moved < 1e-5
    assert (abs(found["test/r2_permuted"] - found["test/r2"]) < 1e-4) == (name != "flat")


def test_loss_is_that_of_the_batch():
    made = task("flat")
    variables, key = made.init(jax.random.key(0)), jax.random.key(1)
    batch = made.sample(made.data, key, jnp.int32(0))
    value, aux = made.loss(variables, batch, key)
    p = made.model.apply(variables, batch["inputs"])[:, 0]
    assert float(value) == pytest.approx(float(((p - batch["targets"]) ** 2).mean()), rel=1e-6)
    assert float(aux.scalars["train/r2"]) == pytest.approx(1 - float(value), rel=1e-6)


def test_ridge_by_normal_equations():
    rng = np.random.default_rng(0)
    x, parts = rng.normal(size=(COUNT, 4)), lib.parts_of(COUNT, 0.5)
    y = x @ [1.0, -2.0, 0.0, 0.5] + rng.normal(size=COUNT)
    found, best = lib.ridge(x, y, parts), None
    for penalty in lib.PENALTIES:
        a, b = x[:30] - x[:30].mean(0), y[:30] - y[:30].mean()
        w = np.linalg.solve(a.T @ a + 30 * penalty * np.eye(4), a.T @ b)
        p = y[:30].mean() + (x - x[:30].mean(0)) @ w
        error = ((p - y)[30:45] ** 2).mean()
        best = (error, p) if best is None or error < best[0] else best
    np.testing.assert_allclose(found, best[1], rtol=1e-8)


def test_targets():
    """The logit, and what hyper-parameters leave: no ridge regression on them finds more than a little in it."""
    own, parts = nets(), lib.parts_of(COUNT, 0.5)
    np.testing.assert_allclose(lib.targets(own, parts, "logit"), np.log(own.accuracy / (1 - own.accuracy)), rtol=1e-9)
    left = lib.targets(own, parts, "residual")
    assert left.var() < 0.5 * own.accuracy.var()
    again = lib.ridge(lib.products(own.columns), left, parts)
    assert again[parts.train].var() < 0.05 * left[parts.train].var()
    with pytest.raises(ValueError, match="target='acuracy' must be one of accuracy, logit, residual"):
        lib.targets(own, parts, "acuracy")
    with pytest.raises(ValueError, match="target='accuracy' is the same for all 30 networks of the train part"):
        lib.targets(own._replace(accuracy=np.full(COUNT, 0.1)), parts, "accuracy")


def test_bad_input():
    with pytest.raises(ValueError, match=r"train_share=0\.97 of 60 networks leaves 58, 1 and 1 for training"):
        task(train_share=0.97)
    with pytest.raises(ValueError, match="batch_size=31 must lie between 1 and the 30 training networks"):
        task(batch_size=31)
    module = make_metanet("flat", outputs=1, reading=nets().reading)
    odd = type("Odd", (), {"inputs": "pictures", "apply": module.apply, "init": module.init})()
    with pytest.raises(ValueError, match="inputs='pictures' of Odd must be one of entries, statistics"):
        lib.make_metanet_task(nets(), odd)


@pytest.mark.extended
def test_a_training_that_was_stopped_ends_with_the_same_bytes(tmp_path):
    """With batch statistics; two metanetworks in one program."""
    module = make_metanet("dmc", outputs=1, reading=nets().reading, channels=(2, 4))
    made = lib.make_metanet_task(nets(), module, batch_size=10)
    asked = itertools.count()

    def train(folder=None, stop=lambda: False):
        kept = None if folder is None else Checkpoints(folder)
        options = {"steps": 12, "replicas": 2, "reports": 4, "key": jax.random.key(0), "checkpoints": kept}
        return fit_lib.fit(made, Adam().make(0.01), hooks=fit_lib.Hooks(stop=stop), **options)

    whole = train()
    part = train(tmp_path, lambda: next(asked) > 2)
    assert 0 < part.step < 12
    rest = train(tmp_path)
    for one, other in zip(jax.tree.leaves(whole.variables), jax.tree.leaves(rest.variables), strict=True):
        np.testing.assert_array_equal(one, other)
    assert rest.history == whole.history
