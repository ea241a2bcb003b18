"""Parts 1 and 2 of `accelerator.py`: what the device is, whether a step is right, and how replicas are best laid.

A case of part 2 is a network, a number of replicas and a dtype: a program for each layout, compiled apart, then rounds
of steps that take turns. Times are of whole rounds, `block_until_ready` at their ends; batches are drawn on the device.
"""

import importlib.metadata
import os
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from sbjax import trees
from sbjax.data.images import ImageData
from sbjax.frame.arms import step_cost
from sbjax.models import make_field, make_model
from sbjax.optimizers import Adam, Sgd
from sbjax.physics.pdes import make_equation
from sbjax.tasks.images import make_image_task
from sbjax.tasks.pinn import Points, make_pinn_task
from sbjax.training import placement_table
from sbjax.training.placement import BLOCK, MANY_ROWS, Placement, Program, primitives_of

LAYOUTS = placement_table.CHOICES
COUNTS = (10, 1, 20, 5, 2)  # replicas, what tells most first
NETS = ("resnet20", "mlp", "pinn", "resnet18")
ROUNDS, ROUND_S = 3, 3.0
PROGRAMS = {"resnet20": "convolution", "resnet18": "convolution", "pinn": "many rows", "mlp": "dense"}


def facts(log, *, small):
    """Versions and device; the defect of jit; a step against the CPU."""
    device = jax.devices()[0]
    names = ("jax", "jaxlib", "flax", "optax", "numpy")
    log.tell(
        "device",
        versions={name: importlib.metadata.version(name) for name in names},
        backend=jax.default_backend(),
        device=device.device_kind,
        devices=jax.device_count(),
        memory=(device.memory_stats() or {}).get("bytes_limit"),
        environment={name: value for name, value in os.environ.items() if name.startswith(("XLA_", "JAX_"))},
    )
    log.tell("jit", **jit_defect())
    for net in ("mlp",) if small else ("mlp", "resnet20", "pinn"):
        if not log.skipped(f"step of {net}", 30):
            log.tell(f"step of {net}", **step_against_cpu(net, small))
    log.tell("done")


def jit_defect():
    """Whether vmapped products agree with their exact values under jit (jax-ml/jax#39103)."""
    rows = 32_769
    x = jnp.zeros((rows, 3), jnp.float32).at[:, 0].set(jnp.arange(rows, dtype=jnp.float32))
    with jax.default_matmul_precision("highest"):
        found = jax.jit(jax.vmap(lambda row: jnp.sum((jnp.eye(3) @ row) ** 2)))(x)
    worst = np.max(
        np.abs(np.asarray(found, np.float64) / np.maximum(np.arange(rows) ** 2.0, 1) - (np.arange(rows) > 0))
    )
    return {"largest_relative_error": float(worst), "right": bool(worst < 1e-6)}


def step_against_cpu(net, small):
    """Parameters after one step of plain gradient descent, on the device and on the CPU, in float32 'highest'."""
    try:
        cpu = jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return {"why": "jax was started without a CPU: unset JAX_PLATFORMS"}
    task, _ = make(net, "float32", small)
    key, found = jax.random.key(0), []

    def step(variables, batch):
        slope = jax.grad(lambda p: task.loss({**variables, "params": p}, batch, key)[0])(variables["params"])
        return jax.tree.map(lambda w, g: w - 0.1 * g, variables["params"], slope), slope

    variables = jax.tree.map(np.asarray, jax.jit(task.init)(key))
    batch = jax.tree.map(np.asarray, task.sample(task.data, key, jnp.int32(0)))
    began, lowered = time.perf_counter(), jax.jit(step).lower(variables, batch)
    seconds = time.perf_counter() - began
    with jax.default_matmul_precision("highest"):
        for device in (cpu, jax.devices()[0]):
            found.append(jax.tree.map(np.asarray, jax.jit(step)(*jax.device_put((variables, batch), device))))
    (params, slopes), (other, other_slopes) = found
    scale = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(slopes))
    worst = max(map(largest, jax.tree.leaves(params), jax.tree.leaves(other)))
    gradient = max(map(largest, jax.tree.leaves(slopes), jax.tree.leaves(other_slopes))) / scale
    return {
        "lowering_s": round(seconds, 3),
        "stablehlo_bytes": len(lowered.as_text()),
        "largest_difference_of_parameters": worst,
        "largest_difference_of_gradient_relative_to_its_largest_entry": gradient,
        "right": bool(gradient < 1e-4),
    }


def largest(a, b):
    return float(np.abs(a - b).max())


def make(net, dtype, small):
    """The task of one network and its optimiser."""
    if net == "pinn":
        equation = make_equation("burgers")
        box = {"lower": equation.lower, "upper": equation.upper}
        widths, points = ((8, 8), 300) if small else ((32, 32, 32), 2000)
        field = make_field("field", unknowns=1, widths=widths, dtype="float32", x64=False, **box)
        return make_pinn_task(equation, field, points=Points(points, points // 10, points // 10)), Adam().make(1e-3)
    shape, examples = ((8, 8, 1) if net == "mlp" else (32, 32, 3)), 256 if small else 4096
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (examples, *shape), np.uint8), rng.integers(0, 10, examples).astype(np.int32)
    few = (pixels[:8], labels[:8])
    data = ImageData("random", 10, pixels, labels, *few, *few, (0.5,) * shape[-1], (0.25,) * shape[-1])
    options = {"widths": (128, 128), "norm": "none"} if net == "mlp" else {"norm": "batch"}
    if small and net != "mlp":
        options["width"] = 0.25
    module = make_model(net, classes=10, dtype=dtype, **options)
    return make_image_task(data, module, batch_size=16 if small else 128), Sgd(weight_decay=0.0).make(0.01)


def bake_off(log, *, small):
    """Every case that fits into the time, and the table of those that were measured."""
    nets = ("mlp", "pinn", "resnet20") if small else NETS
    counts = (2, 1) if small else COUNTS
    device, took, whole = jax.devices()[0].device_kind, {}, True
    for count in counts:
        for net in nets:
            for dtype in ("float32",) if net == "pinn" else ("float32", "bfloat16"):
                name = f"{count} x {net}, {dtype}"
                if name in log.known:
                    continue
                if log.skipped(name, 1.3 * took.get(net, 5.0 if small else 40.0)):
                    whole = False
                    continue
                began = time.perf_counter()
                found = case(net, count, dtype, small)
                took[net] = time.perf_counter() - began
                log.tell(name, device=device, net=net, replicas=count, dtype=dtype, **found)
                if "choice" in found and count > 1:
                    placement_table.save(log.out / "placement_table.json", [row(device, net, count, found)])
    if whole:
        log.tell("done")


def row(device, net, count, found):
    times = {name: layout["step_ms"] for name, layout in found["layouts"].items() if "step_ms" in layout}
    return {
        "device": device,
        "program": PROGRAMS[net],
        "dtype": found["products"],
        "replicas": count,
        "choice": found["choice"],
        "net": net,
        "milliseconds": times,
        "jax": jax.__version__,
        "measured": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def case(net, count, dtype, small):
    """Milliseconds of a step of all replicas by layout."""
    task, optimizer = make(net, dtype, small)
    key = jax.random.key(0)
    batch = jax.eval_shape(task.sample, task.data, key, 0)
    rows = max(leaf.shape[0] for leaf in jax.tree.leaves(batch) if leaf.ndim)
    assert (rows > MANY_ROWS) == (PROGRAMS[net] == "many rows")
    _, products = primitives_of(task.loss, jax.eval_shape(task.init, key), batch, key)
    contenders, layouts = {}, {}
    for layout in LAYOUTS if count > 1 else ("vmap",):
        try:
            contenders[layout], layouts[layout] = contender(task, optimizer, count, layout, small)
        except (RuntimeError, MemoryError) as error:  # it does not fit, or the compiler gave up
            layouts[layout] = {"failed": str(error).splitlines()[0][:200]}
    seconds = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, (run, steps) in contenders.items():
            began = time.perf_counter()
            run(steps)
            seconds[name].append((time.perf_counter() - began) / steps)
    flops = count * step_cost(task).flops
    for name, values in seconds.items():
        middle = statistics.median(values)
        layouts[name] |= {
            "step_ms": round(1e3 * middle, 4),
            "range_ms": [round(1e3 * min(values), 4), round(1e3 * max(values), 4)],
            "rows_per_s": round(count * rows / middle),
            "tflop_per_s": float(f"{flops / middle / 1e12:.3g}"),
        }
    best = {"choice": min(seconds, key=lambda name: statistics.median(seconds[name]))} if seconds else {}
    size = trees.size(jax.eval_shape(task.init, key)["params"])
    return {"rows": rows, "parameters": size, "products": products, "layouts": layouts, **best}


def contender(task, optimizer, count, layout, small):
    """A function that trains for some steps, how many of them are a round, and what compiling took."""
    placement = Placement(layout, "scan", devices=1)
    began = time.perf_counter()
    program = Program(task, optimizer, placement=placement, replicas=count, key=jax.random.key(0))
    carry = [program.init()]
    block = 2 if small else BLOCK  # what accelerators run in one dispatch

    def run(steps):
        carry[0] = program.advance(carry[0], 0, steps)

    run(block)
    compiled = time.perf_counter() - began
    began = time.perf_counter()
    run(block)
    once = time.perf_counter() - began
    blocks = int(np.clip(ROUND_S / ROUNDS / once, 1, 1 if small else 20))
    stats = jax.devices()[0].memory_stats() or {}
    found = {"start_and_compile_s": round(compiled, 2), "peak_bytes": stats.get("peak_bytes_in_use")}
    return (run, blocks * block), {name: value for name, value in found.items() if value is not None}
