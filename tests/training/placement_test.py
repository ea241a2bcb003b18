"""Every way of laying replicas and steps on devices trains the same networks."""

import json
import logging

import jax
import numpy as np
import optax
import pytest

from sbjax import rng
from sbjax.optimizers import Lbfgs, Sgd
from sbjax.training import placement as placement_lib
from sbjax.training import placement_table
from sbjax.training.placement import Placement

LAYOUTS = {
    "vmap scan, 1 device": Placement("vmap", "scan", devices=1),
    "vmap loop, 1 device": Placement("vmap", "loop", devices=1),
    "sequential scan, 1 device": Placement("sequential", "scan", devices=1),
    "map scan, 2 devices": Placement("map", "scan", devices=2),
    "sequential loop, 1 device": Placement("sequential", "loop", devices=1),
    "vmap scan, 2 devices": Placement("vmap", "scan", devices=2),
    "sequential loop, 2 devices": Placement("sequential", "loop", devices=2),
    "pmap over 2 devices": Placement("vmap", "loop", "pmap", devices=2),
}


def train(task, placement, *, replicas=3, steps=5, optimizer=None):
    optimizer = optimizer or Sgd(nesterov=False, weight_decay=0.0).make(0.1)
    program = placement_lib.Program(task, optimizer, placement=placement, replicas=replicas, key=jax.random.key(0))
    carry = program.advance(program.init(), 0, 2)
    carry = program.advance(carry, 2, steps)
    return program, program.collect(carry), program.evaluate(carry)


def close(a, b, scale=100):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=scale * 1.2e-7, atol=scale * 1.2e-7)


@pytest.fixture(scope="module")
def baselines(toys):
    """Task, state and numbers of the first layout, by kind."""
    found = {}
    for kind in ("Dense", "Convolution"):
        task = toys.classification(getattr(toys, kind)())
        found[kind] = (task, *train(task, Placement("vmap", "scan", devices=1))[1:])
    return found


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("kind", "layout"),
    [
        # Convolutions are not vectorised over replicas by default.
        pytest.param(kind, layout, marks=pytest.mark.extended if (kind, layout[:4]) == ("Convolution", "vmap") else ())
        for kind in ("Dense", "Convolution")
        for layout in list(LAYOUTS)[1:]
        # Batch norm sees a device's own rows under pmap, by definition.
        if not (kind == "Convolution" and "pmap" in layout)
    ],
)
def test_layouts_agree(baselines, layout, kind):
    task, expected, numbers = baselines[kind]
    _, state, other = train(task, LAYOUTS[layout])
    close(state, expected)
    close(other, numbers)
    assert state.replica.tolist() == [0, 1, 2]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("kind", ["Dense", "Convolution"])
def test_one_replica_shares_its_batch_over_devices(toys, kind):
    """SGD, because Adam hides a gradient that is N times too large; batch norm sees the whole batch."""
    task = toys.classification(getattr(toys, kind)())
    _, expected, _ = train(task, Placement(devices=1), replicas=1)
    program, state, _ = train(task, Placement(devices=2), replicas=1)
    assert dict(program.mesh.shape) == {"replica": 1, "data": 2}
    close(state, expected)


@pytest.mark.extended
def test_dropout_masks_do_not_depend_on_the_layout(toys):
    task = toys.classification(toys.Dense(dropout=0.5))
    _, expected, _ = train(task, Placement("vmap", "scan", devices=1))
    _, state, _ = train(task, Placement("sequential", "loop", devices=2))
    close(state, expected)


@pytest.mark.extended
def test_a_replica_does_not_depend_on_how_many_there_are(toys):
    task = toys.classification()
    _, five, _ = train(task, Placement("vmap", "scan", devices=1), replicas=5)
    _, one, _ = train(task, Placement("sequential", "loop", devices=1), replicas=1)
    close(jax.tree.map(lambda x: x[:1], five), one)
    first, second = five.variables["params"]["Dense_0"]["kernel"][:2]
    assert np.abs(first - second).max() > 1e-3


@pytest.mark.parametrize("steps", ["scan", "loop"])
def test_compiled_once(toys, steps):
    """Intervals of any length share one program."""
    task = toys.classification()
    program, _, _ = train(task, Placement("vmap", steps, devices=1), steps=9)
    assert program.programs() == 1


@pytest.mark.parametrize(("rows", "devices", "expected"), [(128, 2, "vmap"), (2000, 2, "map"), (2000, 1, "vmap")])
def test_many_rows_are_mapped_one_after_another(rows, devices, expected):
    chosen = placement_lib.choose(Placement(devices=devices), primitives={"dot_general"}, replicas=10, rows=rows)
    assert (chosen.replicas, chosen.steps) == (expected, "scan")


@pytest.mark.parametrize(
    ("shapes", "module", "replicas", "expected"),
    [
        ({"x": (2000, 2), "t": (3,)}, "Dense", 3, ("map", "scan", 2)),
        ({"x": (2, 2000), "t": (3, 2000)}, "Dense", 3, ("vmap", "scan", 2)),
        ({"x": (), "t": ()}, "Dense", 3, ("vmap", "scan", 2)),
        ({"x": (2000, 2)}, "Dense", 1, ("vmap", "scan", 1)),
        ({"x": (8, 2)}, "Convolution", 3, ("sequential", "loop", 2)),
    ],
    ids=["points", "wide", "numbers", "one replica", "convolution"],
)
def test_a_program_looks_at_its_batch_its_loss_and_its_replicas(toys, shapes, module, replicas, expected):
    """Nothing is compiled: the layout is chosen from shapes and the primitives of the loss."""
    toy = toys.classification(getattr(toys, module)())
    images = toy.sample(toy.data, jax.random.key(0), 0)

    def sample(data, key, step):
        return {name: jax.random.normal(key, shape) for name, shape in shapes.items()}

    def loss(variables, batch, key):
        value, aux = toy.loss(variables, images, key)
        return value + sum(leaf.sum() for leaf in batch.values()), aux

    task = toy._replace(sample=sample, loss=loss)
    optimizer = Sgd(nesterov=False, weight_decay=0.0).make(0.1)
    program = placement_lib.Program(task, optimizer, placement=Placement(), replicas=replicas, key=jax.random.key(0))
    assert (program.placement.replicas, program.placement.steps, program.placement.devices) == expected


@pytest.mark.extended
def test_lbfgs_is_the_same_code_path(toys):
    task = toys.classification()
    lbfgs = Lbfgs().make()
    program, expected, _ = train(task, Placement("vmap", "scan", devices=1), optimizer=lbfgs, steps=3, replicas=2)
    _, state, _ = train(task, Placement("sequential", "scan", devices=1), optimizer=lbfgs, steps=3, replicas=2)
    assert program.programs() == 1
    close(state, expected, scale=10_000)


def test_plain_loop_oracle(toys):
    """The mapped program against an explicit loop written with the task's functions alone."""
    task = toys.classification()
    _, state, _ = train(task, Placement("vmap", "scan", devices=1), replicas=2)
    from sbjax.training import step as step_lib

    key, optimizer = jax.random.key(0), optax.sgd(0.1, 0.9)
    for replica in range(2):
        variables = task.init(rng.replica_stream(key, "init", replica))
        params, moments = variables["params"], optimizer.init(variables["params"])
        for step in range(5):
            batch, noise = step_lib.draw(task, task.data, key, replica, step)
            grads = jax.grad(lambda p, b=batch, n=noise: task.loss({"params": p}, b, n)[0])(params)
            updates, moments = optimizer.update(grads, moments)
            params = optax.apply_updates(params, updates)
        close(jax.tree.map(lambda x, r=replica: x[r], state.variables["params"]), params)


def test_convolutions_are_found_and_mapped_apart_on_cpu(toys):
    for kind, expected in (("Dense", ("vmap", "scan")), ("Convolution", ("sequential", "loop"))):
        program, _, _ = train(toys.classification(getattr(toys, kind)()), Placement(devices=1), steps=3)
        assert (program.placement.replicas, program.placement.steps) == expected


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"replicas": "vmapp"}, "replicas='vmapp'.*did you mean 'vmap'"),
        ({"steps": "rolled"}, "steps='rolled'"),
        ({"compile": "pjit"}, "compile='pjit'"),
        ({"devices": -1}, "devices=-1"),
    ],
)
def test_impossible_placements_are_named(fields, words):
    with pytest.raises(ValueError, match=f"^{words}"):
        Placement(**fields)


def test_more_devices_than_there_are(toys):
    with pytest.raises(ValueError, match=r"^devices=64: this process has 2"):
        train(toys.classification(), Placement(devices=64))


@pytest.fixture
def gpu(monkeypatch):
    """Branches for accelerators, on the CPU."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


@pytest.mark.parametrize(
    "layout",
    [
        Placement("vmap", devices=1),
        pytest.param(Placement("map", devices=2), marks=pytest.mark.extended),
        pytest.param(Placement("vmap", "scan", "pmap", devices=2), marks=pytest.mark.extended),
    ],
    ids=["one device", "two devices", "pmap"],
)
def test_blocks_of_steps_train_the_same_networks(toys, layout, monkeypatch):
    """Two programs however the steps are cut, and the same networks as by the one program of a CPU."""

    def make():
        task, optimizer = toys.classification(), Sgd(nesterov=False, weight_decay=0.0).make(0.1)
        return placement_lib.Program(task, optimizer, placement=layout, replicas=3, key=jax.random.key(0))

    plain = make()
    expected = plain.collect(plain.advance(plain.init(), 0, 10))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(placement_lib, "BLOCK", 4)
    blocks = make()
    for cuts in ([10], [3, 7, 10], [4, 8, 10]):
        carry, start = blocks.init(), 0
        for stop in cuts:
            carry, start = blocks.advance(carry, start, stop), stop
        found = blocks.collect(carry)
        close(found, expected)
        assert found.count.tolist() == [10] * 3
    assert (plain.programs(), blocks.programs()) == (1, 2)


@pytest.mark.extended
def test_under_pmap_the_old_state_is_given_up(toys):
    optimizer = Sgd(nesterov=False, weight_decay=0.0).make(0.1)
    for steps in ("loop", "scan"):
        placement = Placement("vmap", steps, "pmap", devices=2)
        program = placement_lib.Program(
            toys.classification(), optimizer, placement=placement, replicas=2, key=jax.random.key(0)
        )
        before = program.init()
        program.advance(before, 0, 2)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Writer of a table, which is then in force."""

    def write(*rows):
        path = tmp_path / "table.json"
        path.write_text(json.dumps({"format": 1, "rows": rows}))
        monkeypatch.setenv("SBJAX_PLACEMENT_TABLE", str(path))
        return path

    placement_table.tell_unmeasured.cache_clear()
    return write


KIND = jax.devices()[0].device_kind
ROW = {"device": KIND, "program": "convolution", "dtype": "float32", "replicas": 10, "choice": "map"}
CONV = {"primitives": {"conv_general_dilated"}, "replicas": 10}


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (CONV, "map"),
        (CONV | {"replicas": 1}, "vmap"),  # one replica is laid in one way only
        (CONV | {"replicas": 4}, "map"),  # the nearest that was measured
        (CONV | {"replicas": 100}, "sequential"),
        (CONV | {"dtype": "bfloat16"}, "vmap"),  # not measured
        ({"primitives": {"dot_general"}, "replicas": 10}, "sequential"),
        ({"primitives": {"dot_general"}, "replicas": 10, "rows": 2000}, "vmap"),
    ],
    ids=["measured", "one", "nearest", "more", "dtype", "dense", "many rows"],
)
def test_off_the_cpu_the_table_says_how(table, case, expected):
    more = ROW | {"replicas": 50, "choice": "sequential"}
    table(ROW, more, ROW | {"program": "dense", "choice": "sequential"}, ROW | {"device": "other", "choice": "vmap"})
    chosen = placement_lib.choose(Placement(devices=1), **case)
    assert (chosen.replicas, chosen.steps) == (expected, "scan")
    asked = placement_lib.choose(Placement("map", devices=1), **case)
    assert asked.replicas == "map"


@pytest.mark.usefixtures("gpu")
def test_replicas_of_a_device_count(table):
    table(ROW | {"replicas": 2, "choice": "map"}, ROW | {"replicas": 10, "choice": "sequential"})
    chosen = [placement_lib.choose(Placement(devices=n), **CONV).replicas for n in (1, 2)]
    assert chosen == ["sequential", "sequential"]
    chosen = [placement_lib.choose(Placement(devices=n), **CONV | {"replicas": 4}).replicas for n in (1, 2)]
    assert chosen == ["map", "map"]


@pytest.mark.usefixtures("gpu")
def test_what_was_not_measured_is_said_once_with_the_command(table, caplog):
    caplog.set_level(logging.INFO, logger="sbjax")
    table()
    for _ in range(2):
        assert placement_lib.choose(Placement(devices=1), **CONV).replicas == "vmap"
    assert caplog.text.count("nothing was measured") == 1
    assert f"convolution programs in float32 on {KIND}" in caplog.text
    assert "python benchmarks/accelerator.py" in caplog.text
    placement_lib.choose(Placement("vmap", devices=1), **CONV | {"dtype": "bfloat16"})  # was asked for
    assert caplog.text.count("nothing was measured") == 1


def test_on_the_cpu_there_is_no_table(table, monkeypatch):
    table(ROW | {"choice": "vmap"})
    monkeypatch.setattr(placement_table, "load", lambda *_: pytest.fail("was read"))
    assert placement_lib.choose(Placement(devices=1), primitives={"sbjax_conv2d"}, replicas=10).replicas == "map"


def test_a_program_in_bfloat16_is_seen_as_one(toys):
    import jax.numpy as jnp

    half = lambda x, w: (x.astype(jnp.bfloat16) @ w.astype(jnp.bfloat16)).astype(jnp.float32)  # noqa: E731
    x = jnp.ones((2, 2))
    fn = jax.jit(lambda x, w: half(half(x, w), w) @ w)
    assert placement_lib.primitives_of(fn, x, x) == ({"jit", "dot_general", "convert_element_type"}, "bfloat16")
    assert placement_lib.primitives_of(lambda x: x + 1, x) == ({"add"}, "float32")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        ("{", "is no JSON"),
        ('{"format": 7, "rows": []}', "no table of format 1"),
        ('{"format": 1, "rows": [3]}', r"rows\[0\]=3 must be an object"),
        (
            json.dumps({"format": 1, "rows": [ROW | {"choice": "vmapp"}]}),
            r"rows\[0\]: choice='vmapp' must be one of vmap",
        ),
        (json.dumps({"format": 1, "rows": [ROW | {"replicas": 0}]}), r"rows\[0\]: replicas=0 must be >= 1"),
        (json.dumps({"format": 1, "rows": [{"device": "Q"}]}), r"rows\[0\]: program=None must be str"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, monkeypatch, content, words):
    path = tmp_path / "table.json"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("SBJAX_PLACEMENT_TABLE", str(path))
    with pytest.raises(ValueError, match=rf"^SBJAX_PLACEMENT_TABLE=.*table.json.*{words}"):
        placement_table.load()


def test_rows_are_added_and_replaced(tmp_path):
    path = tmp_path / "table.json"
    placement_table.save(path, [ROW])
    placement_table.save(path, [ROW | {"choice": "vmap"}, ROW | {"replicas": 2}])
    assert [(row["replicas"], row["choice"]) for row in placement_table.load(path)] == [(2, "map"), (10, "vmap")]
    assert placement_table.load(placement_table.OWN) == []
