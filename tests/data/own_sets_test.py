"""Sets of a user's own by name, from the file or folder to a trained network."""

import pathlib
import re

import jax
import numpy as np
import optax
import pytest
from PIL import Image

from sbjax import data
from sbjax.data.digits import load_digits
from sbjax.models import make_model
from sbjax.tasks.images import make_image_task
from sbjax.training.fit import fit

DOCS = pathlib.Path(__file__).parents[2] / "docs"
EXAMPLE = f"{DOCS / 'examples' / 'my_data.py'}:colour_digits"


def test_the_example_in_the_docs_is_loaded():
    mine = data.load(EXAMPLE)
    assert mine.classes == 10
    assert [len(part) for part in (mine.train_labels, mine.validation_labels, mine.test_labels)] == [1294, 143, 360]
    assert mine.train_images.shape[1:] == (8, 8, 3)
    # Hues differ, the digits are those of the package.
    hues = np.sort(mine.test_images.astype(float).sum((1, 2)), 1)
    assert (hues[:, 0] / hues[:, 2]).min() < 0.6
    darkest = np.sort((load_digits().test_images == 0).sum((1, 2, 3)))
    np.testing.assert_array_equal(np.sort((mine.test_images == 0).all(-1).sum((1, 2))), darkest)
    np.testing.assert_array_equal(data.load(EXAMPLE).train_images, mine.train_images)
    assert data.load(EXAMPLE, image_size=16, train_share=0.5).train_images.shape == (647, 16, 16, 3)


def test_the_example_in_the_docs_runs(monkeypatch):
    monkeypatch.chdir(DOCS.parent)
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "extend" / "data.md").read_text(), re.DOTALL)
    exec(code, {})


@pytest.mark.extended
def test_a_folder_of_digits_is_learned(tmp_path):
    digits = load_digits()
    for split in ("train", "test"):
        images, labels = getattr(digits, f"{split}_images"), getattr(digits, f"{split}_labels")
        for number, (image, label) in enumerate(zip(images, labels)):
            folder = tmp_path / "digits" / split / f"digit {label}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[..., 0]).save(folder / f"{number}.png")
    mine = data.load(f"folder:{tmp_path / 'digits'}", cache_dir=tmp_path / "cache")
    assert len(mine.test_labels) == 360
    model = make_model("cnn", classes=mine.classes, channels=(32,))
    task = make_image_task(mine, model, batch_size=16)
    steps = 2 * task.epoch_steps
    fitted = fit(task, optax.adam(0.01), steps=steps, replicas=1, reports=1, key=jax.random.key(0))
    assert fitted.history[-1]["test/accuracy"][0] > 0.4  # by chance 0.1
