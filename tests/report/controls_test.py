"""Ratios and verdicts against numpy and planted effects."""

import numpy as np
import pytest

from sbjax.report import controls


@pytest.fixture(scope="module")
def noise():
    return np.exp(0.05 * np.random.default_rng(0).normal(size=(3, 12)))


def test_a_ratio_is_the_median_of_ratios_and_ignores_the_seeds_own_level(noise):
    level = 10.0 ** np.arange(12)
    a, b = level * noise[0], 0.3 * level * noise[1]
    found = controls.paired_ratio(a, b)
    assert found.value == pytest.approx(np.exp(np.median(np.log(b / a))), rel=1e-12)
    assert found.low < found.value < found.high < 0.4
    assert found.verdict == "better"
    # A seed that stopped, or reached exactly zero, is left out.
    gaps = controls.paired_ratio(np.append(a, [np.nan, 1.0]), np.append(b, [1.0, 0.0]))
    assert gaps.value == pytest.approx(found.value, rel=1e-12)
    assert controls.paired_ratio(np.array([np.nan]), np.array([1.0])).value is None


@pytest.mark.parametrize(
    ("arm", "control", "said"),
    [
        (0.5, 1.0, "a gain. It survives bias"),
        (0.5, 0.5, "a gain. It does not survive bias"),
        (1.0, 1.0, "no gain shown: there is none that a control could take away"),
        (2.0, 1.0, "a loss: there is none"),
    ],
)
def test_verdicts_on_planted_effects(arm, control, said, noise):
    raw, expanded, bias = noise[0], arm * noise[1], control * noise[2]
    gain, rest = controls.paired_ratio(raw, expanded), controls.paired_ratio(bias, expanded)
    text = controls.survival("error", "expanded", "raw", gain, {"bias": rest})
    assert text.startswith(f"error: expanded / raw {gain.value:.3g} [")
    assert said in text


def test_few_seeds_get_no_verdict():
    few = controls.paired_ratio(np.array([1.0, 1.0]), np.array([0.5, 0.6]))
    assert "too few seeds" in controls.survival("error", "expanded", "raw", few, {})
    assert "no number" in controls.survival("error", "expanded", "raw", controls.Ratio(None, None, None), {})
