"""The example files of the docs on networks, expansions and distances, used as a user uses them."""

import pathlib
import re
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sbjax.data import images as images_lib
from sbjax.expansion.registry import make_expansion
from sbjax.expansion.transform import check_expansion, contract, expand
from sbjax.metrics.monitor import make_replica_monitor
from sbjax.models import make_field, make_model
from sbjax.tasks.images import make_image_task
from sbjax.tasks.regression import make_regression_task, make_target
from sbjax.training.fit import fit

ROOT = pathlib.Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"


@pytest.mark.extended
def test_a_network_an_expansion_and_a_distance_train_together():
    """Three steps of two replicas: batch statistics move, and the distance is reported with its null."""
    model = make_model(f"{EXAMPLES}/my_model.py:Depthwise", classes=10, channels=[4])
    expansion = make_expansion({"kind": f"{EXAMPLES}/my_expansion.py:Channels", "count": 2})
    task = make_image_task(images_lib.load("digits"), model, expansion=expansion, batch_size=32, eval_share=0.1)
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    assert shapes["params"]["Conv_0"]["kernel"].shape == (3, 3, 1, 3)
    monitor = make_replica_monitor([f"{EXAMPLES}/my_distance.py:cosine"], key=jax.random.key(0), shapes=shapes)
    fitted = fit(
        task, optax.sgd(0.1), steps=3, replicas=2, key=jax.random.key(0), reports=1, monitor=monitor, monitor_steps=(3,)
    )
    last = fitted.history[-1]
    assert np.isfinite(last["test/loss"]).all()
    assert (np.asarray(fitted.variables["batch_stats"]["BatchNorm_0"]["mean"]) != 0).any()
    rows = np.concatenate([np.reshape(leaf, (2, -1)) for leaf in jax.tree.leaves(fitted.variables["params"])], 1)
    expected = 1 - rows[0] @ rows[1] / np.linalg.norm(rows[0]) / np.linalg.norm(rows[1])
    assert last["replica_distance/cosine"]["value"] == pytest.approx(expected, rel=1e-4)
    null, excess = (last[f"replica_distance/cosine_{part}"]["value"] for part in ("null", "excess"))
    assert excess == pytest.approx(expected - null, rel=1e-3)


def test_the_network_by_hand():
    """As the bare Linen module computes it."""
    path = f"{EXAMPLES}/my_model.py"
    model, x = make_model(f"{path}:Depthwise", classes=3), jax.random.normal(jax.random.key(1), (2, 8, 8, 1))
    bare = runpy.run_path(path)["Depthwise"](classes=3)
    variables = bare.init(jax.random.key(0), x)
    np.testing.assert_array_equal(model.apply(variables, x, train=False), bare.apply(variables, x))
    with pytest.raises(ValueError, match=r"^chanels=.* is unknown, did you mean 'channels'"):
        make_model(f"{path}:Depthwise", classes=3, chanels=(8,))


def test_the_expansion():
    channels = make_expansion({"kind": f"{EXAMPLES}/my_expansion.py:Channels", "value": 2})
    x = np.arange(12.0, dtype=np.float32).reshape(2, 2, 3)
    np.testing.assert_array_equal(expand(channels, x), np.concatenate([x, np.full((2, 2, 1), 2.0)], -1))
    np.testing.assert_array_equal(contract(channels, expand(channels, x)), x)
    assert check_expansion(channels, (8, 8, 1)) == (8, 8, 2)
    with pytest.raises(ValueError, match=r"Channels does not fit an input of shape \(1,\): Channels takes images"):
        check_expansion(channels, (1,))
    for fields, message in (({"count": 0}, "^count=0 must be >= 1"), ({"cuont": 1}, "did you mean 'count'")):
        with pytest.raises(ValueError, match=message):
            make_expansion({"kind": f"{EXAMPLES}/my_expansion.py:Channels", **fields})


def test_the_distance():
    """0 between equal directions, 2 between opposite ones, 1 between orthogonal ones."""
    cosine = runpy.run_path(str(EXAMPLES / "my_distance.py"))["cosine"]
    for rows, expected in (([[1, 2], [2, 4]], 0), ([[1, 2], [-1, -2]], 2), ([[1, 0], [0, 3], [-1, 0]], 4 / 3)):
        assert float(cosine({"w": jnp.array(rows, jnp.float32)})) == pytest.approx(expected, abs=1e-6)


def test_the_field_fits_a_function():
    field = make_field(f"{EXAMPLES}/my_field.py:Siren", unknowns=1, lower=(-1.0,), upper=(1.0,), widths=(16,))
    task = make_regression_task(make_target("sine"), field, points=64, test_points=32)
    fitted = fit(task, optax.adam(1e-2), steps=200, replicas=2, key=jax.random.key(0), reports=1)
    assert max(fitted.history[-1]["test/mse"]) < 0.01


@pytest.mark.parametrize("page", ["model", "expansion", "distance"])
def test_pages(page, monkeypatch):
    """Their code runs in the folder of the project, and the files that they show are the examples."""
    monkeypatch.chdir(ROOT)
    text = (ROOT / "docs" / "extend" / f"{page}.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    files = {name: (EXAMPLES / name).read_text() for name in re.findall(r"`docs/examples/(\w+\.py)`", text)}
    assert files
    shown = [block for block in blocks if block in files.values()]
    assert sorted(shown) == sorted(files.values())
    namespace = {}
    for block in blocks:
        if block not in shown:
            exec(block, namespace)
