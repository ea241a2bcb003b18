"""What the quickstart pays for logging, checks and saving, and its peak memory.

    python benchmarks/loop.py

The quickstart itself is run in a process of its own. Logging and saving are what is neither training, nor compiling,
nor evaluating in it; the checks (finite or not, running sums) are measured as the difference between the loop's step
and the bare update of the same network on the same batches.
"""

import json
import pathlib
import resource
import subprocess
import sys
import tempfile

import jax
import jax.numpy as jnp
import optax
from common import alternate, figure

from sbjax import config as config_lib
from sbjax import trees
from sbjax.frame.plan import Plan
from sbjax.training import placement as placement_lib
from sbjax.training import step as step_lib

ROOT = pathlib.Path(__file__).parents[1]


def quickstart(workdir: pathlib.Path) -> dict[str, float]:
    """Seconds of the quickstart by kind, summed over arms."""
    command = [sys.executable, "runs/train.py", "--config=configs/quickstart.py", f"--workdir={workdir}"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    lines = [json.loads(line) for line in (workdir / "timings.jsonl").read_text().splitlines()]
    seconds = {name: sum(line[name] for line in lines) for name in lines[0] if name.endswith("_seconds")}
    assert all(line["programs"] == 1 for line in lines), "the training step was compiled more than once"
    return seconds


def checks(plan: Plan) -> float:
    """Seconds of training with checks over seconds without, minus 1; one replica of the reference arm, steps rolled."""
    task = plan.experiment.task_of(plan, plan.reference)
    optimizer = plan.arms[0].optimizer.build(1000)
    key, steps = jax.random.key(0), 200
    placement = placement_lib.Placement("map", "scan", devices=1)
    program = placement_lib.Program(task, optimizer, placement=placement, replicas=1, key=key)
    start = trees.take(program.collect(program.init()), 0)

    def bare_step(step, carry, data):
        variables, opt_state = carry
        batch, noise = step_lib.draw(task, data, key, jnp.int32(0), step)

        def loss(params):
            return task.loss({**variables, "params": params}, batch, noise)

        (value, aux), grads = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        updates, opt_state = optimizer.update(grads, opt_state, variables["params"], value=value)
        params = optax.apply_updates(variables["params"], updates)
        return {**variables, **aux.updates, "params": params}, opt_state

    @jax.jit
    def bare(data, carry, count):
        return jax.lax.fori_loop(0, count, lambda i, c: bare_step(i, c, data), carry)

    seconds = alternate(
        {
            "checked": lambda: program.advance(program.init(), 0, steps),
            "bare": lambda: jax.block_until_ready(bare(task.data, (start.variables, start.opt_state), steps)),
        },
        rounds=9,
    )
    return seconds["checked"] / seconds["bare"] - 1


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        seconds = quickstart(pathlib.Path(folder) / "run")
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024**2
    plan = config_lib.read(_load_quickstart())
    share = (seconds["save_seconds"] + seconds["log_seconds"]) / seconds["train_seconds"]
    checked = max(0.0, checks(plan))
    figure(
        "logging, checks and saving over training time (quickstart)",
        share + checked,
        unit="share",
        bar=0.05,
        logging_and_saving=share,
        checks=checked,
        train_seconds=seconds["train_seconds"],
    )
    figure("peak memory of the quickstart", peak, unit="GiB", bar=2.0)


def _load_quickstart():
    import runpy

    return runpy.run_path(str(ROOT / "configs/quickstart.py"))["get_config"]()


if __name__ == "__main__":
    main()
