"""Made-up reviews whose words say the label, for tests of text classifiers: `tests/toy_texts.py:load`."""

import numpy as np

GOOD, BAD, REST = ("fine", "lovely", "great"), ("dull", "awful", "poor"), ("film", "plot", "actor", "scene", "the", "a")


def load():
    """600 texts in 60 groups, as a function for `task.dataset`."""
    rng = np.random.default_rng(0)
    texts, labels, groups = [], [], []
    for i in range(600):
        label = int(rng.integers(2))
        words = [*rng.choice(REST, rng.integers(1, 8)), *rng.choice(GOOD if label else BAD, rng.integers(1, 3))]
        texts.append(" ".join(rng.permutation(words)) + f" {i}")
        labels.append("good" if label else "bad")
        groups.append(f"film {i % 60}")
    return texts, labels, groups
