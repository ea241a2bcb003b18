"""Checkpoints under every kind of damage."""

import hashlib
import json
import logging
import resource
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sbjax.training.checkpoint import Checkpoints, Kept, superseded
from sbjax.training.checkpoint_files import CheckpointError

IDENTITY = {"arm": "raw", "seed": 3, "settings": "ab12"}


def content(step):
    """Items with optax tuples, integers, a half-precision leaf and nothing at all; all depend on `step`."""
    params = {"dense": {"kernel": np.full((3, 4), step, np.float32), "bias": np.arange(4, dtype=np.float32) + step}}
    half = jnp.full(2, step, jnp.bfloat16)
    state = {"opt_state": optax.adam(1e-3).init(params), "count": np.int32(step), "half": half}
    return {"params": params, "variables": {}, "state": jax.tree.map(np.asarray, state)}


def save(checkpoints, step, metric=None, *, stopgap=False):
    checkpoints.save(step, content(step), meta={"x": 0.1 + 0.2}, metric=metric, stopgap=stopgap)


def restore(folder, **options):
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), content(0))
    return Checkpoints(folder, **{"identity": IDENTITY, **options}).restore(lambda step: abstract)


@pytest.fixture
def folder(tmp_path):
    checkpoints = Checkpoints(tmp_path / "arm", keep=3, identity=IDENTITY)
    for step in (10, 20, 30):
        save(checkpoints, step)
    checkpoints.close()
    return tmp_path / "arm"


def test_round_trip_is_exact(folder):
    found = restore(folder)
    assert (found.step, found.meta["step"], found.meta["x"]) == (30, 30, 0.1 + 0.2)
    assert found.meta["identity"] == IDENTITY
    assert jax.tree.structure(found.items) == jax.tree.structure(content(30))  # optax tuples stay optax tuples
    for a, b in zip(jax.tree.leaves(found.items), jax.tree.leaves(content(30)), strict=True):
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


def digest_of_another_kind(step_folder):
    step_folder.with_name(step_folder.name + ".sha256").write_text("[]")


def rename(step_folder):
    """The folder of step 10, digest and all, as if it were this one."""
    shutil.rmtree(step_folder)
    (step_folder.parent / "10").rename(step_folder)
    (step_folder.parent / "10.sha256").rename(step_folder.parent / f"{step_folder.name}.sha256")


@pytest.mark.parametrize("damage", [flip, truncate, empty, lose_digest, spoil_digest, digest_of_another_kind, rename])
def test_a_damaged_checkpoint_is_named_and_the_previous_one_used(folder, damage, caplog):
    damage(folder / "30")
    with caplog.at_level(logging.ERROR, "sbjax"):
        found = restore(folder)
    assert found.step == 20
    assert np.all(found.items["params"]["dense"]["kernel"] == 20)
    assert "checkpoint of step 30 is not used" in caplog.text
    assert (folder / "damaged" / "30").is_dir()  # kept as evidence, out of the way


def test_step_can_be_saved_again_after_damage(folder):
    flip(folder / "30")
    restore(folder)
    checkpoints = Checkpoints(folder, keep=3, identity=IDENTITY)
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
    items = content(0)
    with pytest.raises(CheckpointError, match=words):
        Checkpoints(folder, identity=IDENTITY).restore(lambda step: {**items, "params": change(items["params"])})


def edit_meta(step_folder, **changes):
    """Write other values (None = none) into a checkpoint and make its digests fit, as another program might have."""
    file = step_folder / "meta" / "metadata"
    meta = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({name: value for name, value in meta.items() if value is not None}))
    digest = step_folder.with_name(step_folder.name + ".sha256")
    digests = json.loads(digest.read_text())
    digest.write_text(json.dumps({**digests, "meta/metadata": hashlib.sha256(file.read_bytes()).hexdigest()}))


@pytest.mark.parametrize(("found", "words"), [(None, "has no checkpoint format"), (3, "has checkpoint format 3")])
def test_another_format_is_refused_and_not_called_damaged(folder, found, words):
    edit_meta(folder / "30", format=found)
    remedy = "this version of sbjax reads format 2. Use another --workdir, or the version that made it"
    with pytest.raises(CheckpointError, match=f"^{folder}/30 {words}, and {remedy}$"):
        restore(folder)
    assert not (folder / "damaged").exists()


@pytest.mark.parametrize(
    ("identity", "words"),
    [
        (IDENTITY | {"seed": 4}, "seed is 3 in the checkpoint and 4 in this run"),
        (IDENTITY | {"arm": "expanded", "seed": 4}, "arm is 'raw' in the checkpoint and 'expanded' in this run"),
        (IDENTITY | {"more": True}, "more is absent in the checkpoint and True in this run"),
        ({"arm": "raw", "seed": 3}, "settings is 'ab12' in the checkpoint and absent in this run"),
        (None, "arm is 'raw' in the checkpoint and absent in this run"),
    ],
)
def test_another_identity_is_refused_by_its_first_entry(folder, identity, words):
    with pytest.raises(CheckpointError, match=f"^{folder}/30 belongs to another run: {words}. Use another --workdir"):
        restore(folder, identity=identity)


def test_identity_is_compared_as_json(tmp_path):
    checkpoints = Checkpoints(tmp_path, identity={"widths": (3, 4)})
    save(checkpoints, 1)
    checkpoints.close()
    assert restore(tmp_path, identity={"widths": [3, 4]}).step == 1


def on_disk(folder):
    steps = sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())
    assert sorted(int(path.stem) for path in folder.glob("*.sha256")) == steps
    return steps


def test_latest_and_best_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2, keep_best=1)
    for step, metric in ((1, 0.5), (2, 0.9), (3, 0.7), (4, 0.6), (5, 0.1)):
        save(checkpoints, step, metric)
    checkpoints.close()
    assert on_disk(tmp_path) == [2, 4, 5]  # the newest stays although it is the worst
    again = Checkpoints(tmp_path, keep=1, keep_best=2)  # what was saved by an earlier process counts as well
    save(again, 6, 0.0)
    again.close()
    assert on_disk(tmp_path) == [2, 4, 6]


@pytest.mark.parametrize(
    ("saved", "expected"),
    [  # (metric, stopgap) by step -> what is left with keep=1, keep_best=1
        ({1: (0.9, False), 2: (None, True)}, [1, 2]),
        ({1: (0.9, False), 2: (None, True), 3: (None, True)}, [1, 3]),
        ({1: (0.9, False), 2: (0.5, False), 3: (None, True)}, [1, 2, 3]),
        ({1: (0.9, False), 2: (0.99, True), 3: (0.5, False)}, [1, 3]),
        ({1: (0.5, False), 2: (0.5, False), 3: (None, False)}, [2, 3]),
        ({1: (None, True), 2: (None, True)}, [2]),
    ],
)
def test_stopgaps_push_out_neither_the_latest_nor_the_best(tmp_path, saved, expected):
    options = {"keep": 1, "keep_best": 1}
    checkpoints = Checkpoints(tmp_path, **options)
    kept = {}
    for step, (metric, stopgap) in saved.items():
        save(checkpoints, step, metric, stopgap=stopgap)
        kept[step] = Kept(metric, stopgap)
        for old in superseded(kept, goal="max", **options):
            del kept[old]
    checkpoints.close()
    assert on_disk(tmp_path) == expected == sorted(kept)


@pytest.mark.parametrize("goal", ["max", "min"])
def test_stopgaps_change_nothing_of_what_is_kept_in_the_end(goal):
    """Any metrics, any stopgaps in between: after a last save that is none, the same steps are left."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        options = {"keep": int(rng.integers(1, 4)), "keep_best": int(rng.integers(0, 4)), "goal": goal}
        metrics = rng.integers(0, 4, 12)
        left = []
        for gaps in (np.zeros(11, bool), rng.random(11) < 0.6):
            kept = {}
            for i, metric in enumerate(metrics):
                new = [(10 * i, Kept(float(metric) if metric else None, False))]
                new += [(10 * i + 5, Kept(None, True))] if i < 11 and gaps[i] else []
                for step, one in new:
                    kept[step] = one
                    for old in superseded(kept, **options):
                        del kept[old]
                    assert step in kept
            left.append(sorted(kept))
        assert left[0] == left[1]
        ranked = [i for _, i in sorted((m if goal == "max" else -m, i) for i, m in enumerate(metrics) if m)]
        best = ranked[-options["keep_best"] :] if options["keep_best"] else []
        assert left[0] == sorted({10 * i for i in {*best, *range(12 - options["keep"], 12)}})


def test_a_full_disk_or_a_kill_loses_nothing(tmp_path, monkeypatch):
    """Nothing old is deleted before the digest of the new one is on the disk, also where one alone is kept."""

    def full(*_):
        raise OSError(28, "No space left on device")

    checkpoints = Checkpoints(tmp_path, keep=1, identity=IDENTITY)
    save(checkpoints, 30)
    monkeypatch.setattr("sbjax.training.checkpoint.write_atomically", full)
    with pytest.raises(CheckpointError, match=r"step 40 could not be written.*No space left"):
        save(checkpoints, 40)
    checkpoints.close()
    monkeypatch.undo()
    assert restore(tmp_path).step == 30


def test_digest_covers_every_file(folder):
    digests = json.loads((folder / "30.sha256").read_text())
    assert set(digests) == {str(p.relative_to(folder / "30")) for p in (folder / "30").rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("fields", "words"), [({"keep": 0}, "^keep=0 must be >= 1"), ({"keep_best": -1}, "^keep_best=-1 must be >= 0")]
)
def test_refusals(tmp_path, fields, words):
    with pytest.raises(ValueError, match=words):
        Checkpoints(tmp_path, **fields)


def test_a_disk_that_is_full_is_told_in_one_sentence(folder, caplog, capfd):
    """Orbax's threads log their tracebacks; what was saved stays."""
    checkpoints = Checkpoints(folder, keep=3, identity=IDENTITY)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"step 40 could not be written.*large.*make room") as caught:
            checkpoints.save(40, {"params": {"w": np.random.default_rng(0).normal(size=100_000)}}, meta={})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        for name in ("absl", "asyncio", "orbax"):
            logging.getLogger(name).setLevel(logging.NOTSET)
    assert "\n" not in str(caught.value)
    assert caplog.text == ""
    assert "Traceback" not in capfd.readouterr().err
    assert restore(folder).step == 30


def test_written_in_the_background(tmp_path):
    """Same files as a save that is waited for; an error is told once, by what comes next."""
    for folder, background in (("waited", False), ("background", True)):
        checkpoints = Checkpoints(tmp_path / folder, keep=1, identity=IDENTITY)
        history = [{"step": 1}]
        for step in (10, 20):
            checkpoints.save(step, content(step), meta={"history": history}, background=background)
            history.append({"step": step})  # after it was handed over
        checkpoints.close()
        assert [path.name for path in sorted((tmp_path / folder).iterdir())] == ["20", "20.sha256"]
        assert restore(tmp_path / folder).meta["history"] == [{"step": 1}, {"step": 10}]
    (tmp_path / "file").write_text("")
    checkpoints = Checkpoints(tmp_path / "file" / "arm", identity=IDENTITY)
    checkpoints.save(10, content(10), meta={}, background=True)
    with pytest.raises(CheckpointError, match="checkpoint of step 10 could not be written"):
        checkpoints.save(20, content(20), meta={}, background=True)
    checkpoints.close()
