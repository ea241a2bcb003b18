"""Checkpoints under every kind of damage."""

import json
import logging
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sbjax.training.checkpoint import CheckpointError, Checkpoints, layout


def content(step):
    """Parameters and a state with optax tuples, integers and a half-precision leaf; all depend on `step`."""
    params = {"dense": {"kernel": np.full((3, 4), step, np.float32), "bias": np.arange(4, dtype=np.float32) + step}}
    half = jnp.full(2, step, jnp.bfloat16)
    state = {"opt_state": optax.adam(1e-3).init(params), "count": np.int32(step), "half": half}
    return params, jax.tree.map(np.asarray, state)


def save(checkpoints, step, metric=None):
    params, state = content(step)
    meta = {"step": step, "x": 0.1 + 0.2, "layout": layout({"params": params, "state": state})}
    checkpoints.save(step, params=params, state=state, meta=meta, metric=metric)


def restore(folder):
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), content(0))
    return Checkpoints(folder).restore(lambda step: abstract)


@pytest.fixture
def folder(tmp_path):
    checkpoints = Checkpoints(tmp_path / "arm", keep=3)
    for step in (10, 20, 30):
        save(checkpoints, step)
    checkpoints.close()
    return tmp_path / "arm"


def test_round_trip_is_exact(folder):
    found = restore(folder)
    params, state = content(30)
    assert found.step == 30
    assert found.meta == {"step": 30, "x": 0.1 + 0.2}
    for tree, expected in ((found.params, params), (found.state, state)):
        assert jax.tree.structure(tree) == jax.tree.structure(expected)  # optax tuples stay optax tuples
        for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
            assert a.dtype == b.dtype
            assert np.asarray(a).tobytes() == b.tobytes()


def test_nothing_there(tmp_path):
    assert restore(tmp_path / "none") is None


def largest(step_folder):
    return max((path for path in step_folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def flip(step_folder):
    file = largest(step_folder)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


def truncate(step_folder):
    file = largest(step_folder)
    file.write_bytes(file.read_bytes()[:-7])


def empty(step_folder):
    shutil.rmtree(step_folder)
    step_folder.mkdir()


def lose_digest(step_folder):
    step_folder.with_name(step_folder.name + ".sha256").unlink()


def spoil_digest(step_folder):
    step_folder.with_name(step_folder.name + ".sha256").write_text('{"a": ')


@pytest.mark.parametrize("damage", [flip, truncate, empty, lose_digest, spoil_digest])
def test_a_damaged_checkpoint_is_named_and_the_previous_one_used(folder, damage, caplog):
    damage(folder / "30")
    with caplog.at_level(logging.ERROR, "sbjax"):
        found = restore(folder)
    assert found.step == 20
    assert np.all(found.params["dense"]["kernel"] == 20)
    assert "checkpoint of step 30 is not used" in caplog.text
    assert (folder / "damaged" / "30").is_dir()  # kept as evidence, out of the way


def test_step_can_be_saved_again_after_damage(folder):
    flip(folder / "30")
    restore(folder)
    checkpoints = Checkpoints(folder, keep=3)
    save(checkpoints, 30)
    checkpoints.close()
    assert restore(folder).step == 30


def test_all_damaged(folder):
    for step in (10, 20, 30):
        flip(folder / str(step))
    assert restore(folder) is None


def test_leftovers_of_a_killed_save_are_removed(folder):
    leftover = folder / "40.orbax-checkpoint-tmp-1234"
    shutil.copytree(folder / "30", leftover)
    assert restore(folder).step == 30
    assert not leftover.exists()


def test_a_bare_numbered_folder_is_not_the_latest(folder):
    """What `cp -r` leaves when it is killed: orbax alone would restore from it."""
    (folder / "99").mkdir()
    shutil.copytree(folder / "30" / "params", folder / "99" / "params")
    assert restore(folder).step == 30


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda p: {**p, "dense": {**p["dense"], "kernel": np.zeros((3, 5), np.float32)}},
            r"float32\[3, 4\].*float32\[3, 5\]",
        ),
        (lambda p: {**p, "dense": {**p["dense"], "bias": np.zeros(4, np.float16)}}, "float16"),
        (lambda p: {**p, "more": np.zeros(1, np.float32)}, "absent in the checkpoint"),
    ],
)
def test_another_layout_is_refused(folder, change, words):
    """Orbax alone would cast the dtype without a word."""
    params, state = content(0)
    with pytest.raises(CheckpointError, match=words):
        Checkpoints(folder).restore(lambda step: (change(params), state))


def test_latest_and_best_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "arm", keep=2, keep_best=1, goal="max")
    for step, metric in ((1, 0.5), (2, 0.9), (3, 0.7), (4, 0.6), (5, 0.1)):
        save(checkpoints, step, metric)
    checkpoints.close()
    steps = sorted(int(path.name) for path in (tmp_path / "arm").iterdir() if path.name.isdigit())
    assert steps == [2, 4, 5]  # the newest stays although it is the worst
    assert sorted(path.stem for path in (tmp_path / "arm").glob("*.sha256")) == ["2", "4", "5"]
    assert restore(tmp_path / "arm").step == 5


def test_a_full_disk_loses_nothing(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    checkpoints = Checkpoints(folder, keep=3)
    monkeypatch.setattr("sbjax.training.checkpoint.write_atomically", full)
    with pytest.raises(CheckpointError, match=r"step 40 could not be written.*No space left"):
        save(checkpoints, 40)
    checkpoints.close()
    monkeypatch.undo()
    assert restore(folder).step == 30


def test_digest_covers_every_file(folder):
    digests = json.loads((folder / "30.sha256").read_text())
    assert set(digests) == {str(p.relative_to(folder / "30")) for p in (folder / "30").rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("fields", "words"), [({"keep": 0}, "checkpoint.keep=0"), ({"keep_best": -1}, "checkpoint.keep_best=-1")]
)
def test_refusals(tmp_path, fields, words):
    with pytest.raises(ValueError, match=words):
        Checkpoints(tmp_path, **fields)
