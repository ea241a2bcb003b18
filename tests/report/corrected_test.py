"""Verdicts of several comparisons at once."""

import numpy as np
import pytest
from scipy import stats

from sbjax.report import corrected as lib
from sbjax.report.statistics import paired


def test_holm_is_the_smallest_level_at_which_step_down_rejects():
    """By the definition: at level a, reject in ascending order while p_(k) <= a / (m - k + 1)."""
    p = np.random.default_rng(0).uniform(0, 0.3, 7)

    def rejected(level):
        kept, order = np.zeros(7, bool), np.argsort(p)
        for k, i in enumerate(order):
            if p[i] > level / (7 - k):
                break
            kept[i] = True
        return kept

    levels = np.linspace(0, 1, 20001)
    by_definition = [next((a for a in levels if rejected(a)[i]), 1.0) for i in range(7)]
    np.testing.assert_allclose(lib.holm(p.tolist()), by_definition, atol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 4, 12])
def test_fewest_seeds_is_where_wilcoxon_can_be_small_enough(count):
    n = lib.fewest_seeds(count)
    least = [stats.wilcoxon(np.arange(1.0, m + 1)).pvalue * count for m in (n - 1, n)]
    assert least[1] <= 0.05 < least[0]


def test_without_any_effect_a_corrected_verdict_is_rarer_than_the_level():
    """Four arms without effect: some single verdict is false in a fifth of experiments, some corrected one in 5 %."""
    rng, single, corrected = np.random.default_rng(1), 0, 0
    for _ in range(150):
        raw, *arms = rng.normal(size=(5, 10))
        found = [paired(raw, arm, resamples=200)._asdict() for arm in arms]
        found = lib.with_corrected(found)
        single += any(one["verdict"] in ("better", "worse") for one in found)
        corrected += any(one["verdict_corrected"] in ("better", "worse") for one in found)
    assert single > 10
    assert corrected <= 14  # of 150: above it with probability 0.01 at a true rate of 5 %
    assert corrected < single


def test_what_is_said():
    raw = np.zeros(10)
    strong, weak = (paired(raw, np.linspace(low, 1, 10))._asdict() for low in (0.5, -0.25))
    one, other, none = lib.with_corrected([strong, weak, None])
    assert none is None
    assert (one["verdict"], one["verdict_corrected"], one["comparisons"]) == ("better", "better", 2)
    assert other["p_corrected"] >= other["p_value"]
    assert lib.with_corrected([strong])[0]["verdict_corrected"] == "better"
    few = [paired(raw[:6], np.linspace(0.5, 1, 6))._asdict() for _ in range(4)]
    assert {one["verdict_corrected"] for one in lib.with_corrected(few)} == {
        "too few seeds for a verdict among 4 (fewer than 8)"
    }
    assert "A verdict takes 5 seeds that finished in both arms, one corrected for 4 takes 8; there are 6." in lib.note(
        lib.with_corrected(few)
    )
