"""Zoos on disk: what is written is read, and whatever is damaged is told in one sentence."""

import json

import numpy as np
import pytest

from sbjax import trees
from sbjax.asymmetry.options import build_asymmetric
from sbjax.common.files import FileError, write_json
from sbjax.data import zoo, zoo_blocks
from sbjax.models import make_model

MODEL = {"name": "cnn", "channels": (3, 4), "norm": "none", "activation": "relu"}
ASYMMETRY = {"kind": "w", "masks": {"conv_1/kernel": {"n_fix": 2, "kappa": 1.0}}}
SPANS = ((0, 2), (2, 5))


def variables(asymmetry):
    import jax

    module = build_asymmetric(make_model("cnn", classes=10, channels=(3, 4), norm="none"), asymmetry)
    made = [module.init(jax.random.key(i), np.zeros((1, 4, 4, 1), np.float32)) for i in range(5)]
    return module, [jax.tree.map(np.asarray, one) for one in made]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A zoo of five W-asymmetric networks in two blocks, the second one first and its rows in another order."""
    path = tmp_path_factory.mktemp("zoo") / "w"
    path.mkdir()
    module, nets = variables(ASYMMETRY)
    about, digests = {"identity": "i", "fingerprint": "f"}, {}
    for start, stop in reversed(SPANS):
        order = np.arange(start, stop)[::-1]
        arrays = {
            f"params/{name}": leaf
            for name, leaf in trees.flatten(trees.stack([nets[i]["params"] for i in order])).items()
        }
        arrays = {name: np.asarray(leaf) for name, leaf in arrays.items()}
        arrays |= {"accuracy": np.stack([order / 10, order / 5], 1), "loss": np.ones((len(order), 2)), "index": order}
        arrays |= {"hyperparameters/activation": order % 2, "hyperparameters/learning_rate": order / 100}
        name = zoo_blocks.block_name(start, stop)
        zoo_blocks.write_block(path / name, arrays, start=start, stop=stop, **about)
        digests[name] = zoo_blocks.digest(arrays)
    frozen = {name: np.asarray(leaf)[None] for name, leaf in trees.flatten(nets[0]["frozen"]["asymmetry"]).items()}
    zoo_blocks.write_block(path / zoo_blocks.CONSTANTS, frozen, start=0, stop=1, **about)
    card = {"format": zoo_blocks.FORMAT, "kind": "w", "networks": 5, "model": MODEL, "classes": 10, **about}
    card |= {"input_shape": [4, 4, 1], "asymmetry": ASYMMETRY, "words": {"activation": ["relu", "tanh"]}}
    write_json(path / zoo_blocks.CARD, card | {"blocks": digests})
    return path, module, nets


def test_what_is_read_is_what_was_written(written):
    path, module, nets = written
    found = zoo.read(path)
    assert len(found) == 5
    assert found.index.tolist() == [0, 1, 2, 3, 4]
    assert found.accuracy[:, -1].tolist() == [0.0, 0.2, 0.4, 0.6, 0.8]
    assert found.hyperparameters["activation"].tolist() == ["relu", "tanh", "relu", "tanh", "relu"]
    assert found.size == 3 * 9 + 3 + 3 * 4 * 9 + 4 + 4 * 10 + 10
    assert found.trainable_size == found.size - 4 * 2
    images = np.random.default_rng(0).normal(size=(6, 4, 4, 1)).astype(np.float32)
    np.testing.assert_array_equal(found.apply(2, images), module.apply(nets[2], images))
    other = build_asymmetric(make_model("cnn", classes=10, channels=(3, 4), norm="none", activation="tanh"), ASYMMETRY)
    np.testing.assert_array_equal(found.apply(3, images), other.apply(nets[3], images))
    kernel = found.params["conv_1"]["kernel"]
    assert not kernel[:, ~found.masks["conv_1"]["kernel"]].any()


def test_some_networks_of_a_zoo(written):
    found = zoo.read(written[0])
    few = found.take(np.array([3, 1]))
    assert few.index.tolist() == [3, 1]
    assert few.hyperparameters["learning_rate"].tolist() == [0.03, 0.01]
    np.testing.assert_array_equal(few.params["head"]["bias"], found.params["head"]["bias"][[3, 1]])
    np.testing.assert_array_equal(few.masks["conv_1"]["kernel"], found.masks["conv_1"]["kernel"])
    found.params["conv_0"]["kernel"][4, 0, 0, 0, 0] = np.nan
    found.loss[0, 1] = np.inf
    assert found.finite().index.tolist() == [1, 2, 3]


def test_the_same_arrays_give_the_same_bytes(tmp_path):
    arrays = {"b": np.arange(4.0), "a": np.ones((4, 2), np.float32)}
    for name, given in (("one", arrays), ("two", dict(reversed(arrays.items())))):
        zoo_blocks.write_block(tmp_path / name, given, start=0, stop=4, identity="", fingerprint="")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def copied(path, target):
    target.mkdir()
    for file in path.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def test_damage_is_told(written, tmp_path):
    block = zoo_blocks.block_name(0, 2)

    def flipped(path):
        content = bytearray(path.read_bytes())
        content[-3] ^= 1
        path.write_bytes(bytes(content))

    def other_block(path):
        arrays, about = zoo_blocks.read_block(path)
        arrays["accuracy"] = arrays["accuracy"] + 1
        del about["format"], about["digest"]
        zoo_blocks.write_block(path, arrays, **about)

    def card(**changes):
        return lambda path: write_json(path, json.loads(path.read_text()) | changes)

    cases = [
        (block, flipped, FileError, "SHA-256 differs"),
        (block, lambda path: path.write_bytes(path.read_bytes()[:100]), FileError, "cannot be read"),
        (block, lambda path: path.unlink(), FileError, "is missing"),
        (block, other_block, FileError, "is not the block"),
        (zoo_blocks.CONSTANTS, lambda path: path.unlink(), FileError, "is missing"),
        (zoo_blocks.CARD, lambda path: path.unlink(), FileNotFoundError, "not finished"),
        (zoo_blocks.CARD, lambda path: path.write_text("{"), FileError, "cannot be read"),
        (zoo_blocks.CARD, card(blocks=3), FileError, "blocks=3"),
        (zoo_blocks.CARD, card(format=9), FileError, "format 9"),
        (zoo_blocks.CARD, card(identity="j"), FileError, "another zoo"),
        (zoo_blocks.CARD, card(blocks={"../x": "y"}), FileError, "no file beside it"),
    ]
    for number, (name, damage, kind, said) in enumerate(cases):
        folder = copied(written[0], tmp_path / str(number))
        damage(folder / name)
        with pytest.raises(kind, match=said) as caught:
            zoo.read(folder)
        assert str(folder) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_folder_above_is_told_where_to_look(written):
    with pytest.raises(FileNotFoundError, match="give one of w in it"):
        zoo.read(written[0].parent)
