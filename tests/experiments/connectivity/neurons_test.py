"""Neurons of trained networks: what is watched, costs of the right layer and constants, units in place, the report."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from sbjax import trees
from sbjax.asymmetry import AsymmetrySpec, MaskSpec, make_asymmetric
from sbjax.data.vectors import gaussian_classes
from sbjax.experiments.connectivity import neurons, neurons_report
from sbjax.frame.errors import ConfigError
from sbjax.models import make_model
from sbjax.symmetry import identifiability as lib
from sbjax.symmetry.permutation import permute
from sbjax.symmetry.spec import derive_spec
from sbjax.tasks.vectors import make_vector_task

DATA = gaussian_classes(dimension=3, ambient=10, classes=4, train=120, test=20)
MLP = make_model("mlp", classes=4, widths=(6, 5), norm="layer")
SPEC = AsymmetrySpec("w", masks=(("dense_*/kernel", MaskSpec(2, 1.0)),))


class Linear(nn.Module):
    """Its only dense layer is the output."""

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(4)(x)


def task_of(module):
    return make_vector_task(DATA, module, batch_size=10, line_examples=100, eval_batch_size=50)


def stacked(task, count=2):
    return jax.jit(jax.vmap(task.init))(jax.random.split(jax.random.key(0), count))


@pytest.mark.extended
def test_hidden_dense_layers_are_watched_part_by_part():
    task = task_of(MLP)
    variables = trees.take(stacked(task), 0)
    seen = neurons.dense_layers(task, task.data, variables, 1)
    assert list(seen) == ["dense_0", "dense_1"]  # not the output
    x = DATA.train[0][50:100]
    np.testing.assert_array_equal(seen["dense_0"][0], x)
    first = variables["params"]["dense_0"]
    np.testing.assert_allclose(seen["dense_0"][1], x @ first["kernel"] + first["bias"], atol=1e-5)
    assert seen["dense_1"][0].shape == (50, 6)


def test_costs_are_those_of_the_layer_and_its_constants():
    task = task_of(make_asymmetric(MLP, SPEC))
    variables = stacked(task)
    found = neurons.identify(task, variables, [(0, 1)], key=jax.random.key(1))
    layer = found["layers"]["dense_0"]
    basis = lib.subspace_basis(DATA.train[0][:100], variance=0.9).vectors
    one = trees.take(variables, 1)
    made = {part: np.asarray(tree["dense_0"]["kernel"]) for part, tree in one["frozen"]["asymmetry"].items()}
    weights = made["fixed"] + made["trainable"] * np.asarray(one["params"]["dense_0"]["kernel"])
    by_hand = lib.summarise(lib.realisation_costs(basis, weights, **made))
    assert layer["relative"][1] == pytest.approx(by_hand.relative)
    assert layer["swappable"][1] == pytest.approx(by_hand.swappable)
    assert layer["dimension"] == [basis.shape[1]] * 2
    assert found["swap"] == pytest.approx(np.mean([x["relative"] for x in found["layers"].values()], axis=0).tolist())


def test_standard_networks_have_no_costs_and_copies_are_in_place():
    """A network beside itself; and beside itself with two of six units exchanged."""
    task = task_of(MLP)
    one = trees.take(stacked(task), 0)
    spec = derive_spec(task.lines.apply, one, task.lines.inputs(task.data))
    exchanged = {name: np.arange(n, dtype=np.int32) for name, n in spec.sizes.items()}
    six = next(name for name, n in spec.sizes.items() if n == 6)
    exchanged[six] = np.array([1, 0, 2, 3, 4, 5], np.int32)
    both = trees.stack([one, one, permute(spec, one, exchanged)])
    found = neurons.identify(task, both, [(0, 1), (0, 2)], key=jax.random.key(1))
    assert found["layers"]["dense_0"]["in_place"] == pytest.approx([1, 4 / 6])
    assert found["layers"]["dense_1"]["in_place"] == [1, 1]
    assert found["in_place"] == pytest.approx([1, (1 + 4 / 6) / 2])
    assert np.abs(found["swap"]).max() < 1e-10
    assert found["replicas"] == [0, 1, 2]


def test_many_neurons_are_sampled(monkeypatch):
    monkeypatch.setattr(neurons, "MOST_NEURONS", 3)
    task = task_of(MLP)
    found = neurons.identify(task, stacked(task), [(0, 1)], key=jax.random.key(1))
    assert set(found["layers"]) == {"dense_0", "dense_1"}
    monkeypatch.setattr(neurons, "MOST_NEURONS", 1)
    with pytest.raises(ValueError, match="one neuron"):
        neurons.identify(task, stacked(task), [(0, 1)], key=jax.random.key(1))


def test_a_network_without_hidden_dense_layers_is_refused():
    with pytest.raises(ConfigError, match=r"^interpolation\.identifiability=True needs a network with a hidden dense"):
        neurons.check(task_of(Linear()))
    neurons.check(task_of(MLP))


def lines(swap, in_place, barrier):
    layer = {"dimension": [3, 3], "coherence": [0.5, 0.5], "swap": [swap] * 2, "relative": [swap] * 2}
    layer |= {"swappable": [0.5] * 2, "residual": [0.1] * 2, "in_place": [in_place]}
    heights = {"test/loss": {neurons_report.BARRIER: [barrier]}}
    return {
        "identifiability": {"layers": {"dense_0": layer}, "swap": [swap] * 2, "in_place": [in_place]},
        "pairs": {"heights": heights},
    }


def test_the_report_has_a_row_an_arm_a_figure_and_correlations(tmp_path):
    found = {f"arm_{n}": lines(float(n), n / 10, -(n**2.0)) for n in range(6)}
    (section,) = neurons_report.section({**found, "other": {"pairs": {}}}, tmp_path)
    table = section.parts[0]
    assert [row[0] for row in table.rows] == list(found)
    assert list(table.rows[2][1:7]) == ["3", "0.50", "2", "50 %", "10 %", "20 %"]
    said = [part.text for part in section.parts if hasattr(part, "text")]
    assert any("over 6 arms: -1.00 [-1.00, -1.00]" in text for text in said)
    assert (tmp_path / "figures" / "identifiability.png").exists() or list(tmp_path.rglob("identifiability.png"))
    assert neurons_report.section({"other": {"pairs": {}}}, tmp_path) == []


def test_rank_correlations_are_scipys_and_need_enough_arms():
    import scipy.stats

    random = np.random.default_rng(0)
    x, y = random.normal(size=(2, 20))
    x[:5] = 0  # ties
    value, low, high = neurons_report.spearman(x, y)
    assert value == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    assert low < value < high
    assert np.isnan(neurons_report.spearman(x[:3], y[:3])).all()
    assert np.isnan(neurons_report.spearman(np.zeros(9), y[:9])).all()
    assert jnp.isfinite(value)
