"""What a GPU or TPU does with this program: a visit of 25 minutes in calls of under 9, each of which goes on.

    python benchmarks/accelerator.py --out=DIR                          # again, until it says that all is done
    python benchmarks/accelerator.py --out=DIR --part=2 --budget_s=500  # one part alone
    python benchmarks/accelerator.py --out=DIR --device=cpu             # small networks: whether all of it runs
    python benchmarks/accelerator.py --out=DIR --record=FILE            # a record of what lies there

    1  versions and devices; the defect of jax-ml/jax#39103; a training step in float32 'highest' against the CPU
    2  ResNet-20, ResNet-18, a PINN and an MLP at 1 to 20 replicas: vmap, map, sequential; float32 'default', bfloat16
    3  a run killed (kill -9) and gone on with, against one that was not, with and without deterministic operations
    4  `configs/images.py` with the arms raw, nearest and expanded, one after the other, as far as the time goes

Each finding is a line of DIR/accelerator.jsonl, written when it is known, so that a cut leaves what was found; what did
not fit into the time is a line too, and is taken up by the next call. Part 2 writes the table that `placement.replicas=
auto` reads, DIR/placement_table.json (`SBJAX_PLACEMENT_TABLE=FILE`, or copied to sbjax/training/). Each part is a
process of its own with a limit: one that hangs is killed with all that it started.
"""

import argparse
import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
SHARE_S = {1: 120, 2: 500, 3: 200, 4: 700}  # of a visit
ON_CPU = 5  # times as much in the CPU form: nobody waits for it, and the machine may be shared
SPARE_S = 15  # to end a process and write
THREE_ARMS = """import runpy


def get_config(argument=None):
    config = runpy.run_path({file!r})["get_config"](argument)
    config.arms = {{name: config.arms[name] for name in {arms!r}}}
    return config
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--part", type=int, choices=SHARE_S, help="one of them alone, in this process")
    parser.add_argument("--budget_s", type=float, default=520.0, help="seconds of this call")
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto", help="cpu = small networks, no table")
    parser.add_argument("--images", default="cifar10,resnet20", help="words of configs/images.py for part 4")
    parser.add_argument("--flags", default="", help="further flags of runs/train.py for part 4, separated by blanks")
    parser.add_argument("--record", type=pathlib.Path, help="write a record of what lies in --out, and nothing else")
    given = parser.parse_args()
    if given.record:
        sys.path.insert(0, str(ROOT))
        import accelerator_record

        accelerator_record.write(given.record, read(given.out), cpu=given.device == "cpu")
        return
    if given.budget_s < 2 * SPARE_S:
        sys.exit(f"--budget_s={given.budget_s:g} must be at least {2 * SPARE_S}")
    given.out.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + given.budget_s - SPARE_S
    if given.part:
        run_part(given, ends)
        return
    for part in SHARE_S:
        left, share = ends - time.monotonic(), share_left(given, part)
        if not share:
            continue
        if left < 2 * SPARE_S:
            tell(given.out, part=part, name="skipped", why=f"{left:.0f} s are left of this call; call it again")
            break
        began = time.monotonic()
        code = in_process(given, part, min(left, share))
        last = [line["name"] for line in read(given.out) if line["part"] == part][-1:]
        tell(given.out, part=part, name="spent", seconds=round(time.monotonic() - began))
        if last == ["skipped"] and share <= left:  # it would be skipped again
            tell(given.out, part=part, name="over", why=f"{share:.0f} s were left of its time, and that is too short")
        if code:
            tell(given.out, part=part, name="ended", why="out of time" if code < 0 else f"exit code {code}")
    waiting = [part for part in SHARE_S if share_left(given, part)]
    print(
        "all parts are done, or have had their time" if not waiting else f"not done: parts {waiting}; call it again",
        flush=True,
    )


def run_part(given, ends):
    """One part in this process."""
    if given.device == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"
    else:  # reading it back on a CPU fills the terminal with features of machines
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(given.out.absolute() / "xla_cache"))
    sys.path.insert(0, str(ROOT))
    log = Log(given.out, given.part, ends)
    if given.part in (1, 2):
        import accelerator_steps

        (accelerator_steps.facts if given.part == 1 else accelerator_steps.bake_off)(log, small=given.device == "cpu")
    elif given.part == 3:
        resume(log, small=given.device == "cpu")
    else:
        images(log, given)


def in_process(given, part, seconds):
    """A part as a process of its own, ended with all that it started when its time is up; its exit code."""
    words = [f"--part={part}", f"--budget_s={seconds + SPARE_S:.0f}", f"--out={given.out}", f"--device={given.device}"]
    words += [f"--images={given.images}", f"--flags={given.flags}"]
    process = subprocess.Popen([sys.executable, __file__, *words], start_new_session=True)
    return wait(process, seconds)


def wait(process, seconds):
    """Its exit code; SIGTERM for its group after so many seconds, SIGKILL a little later."""
    for number, allowed in ((signal.SIGTERM, seconds), (signal.SIGKILL, SPARE_S / 2)):
        try:
            return process.wait(max(allowed, 0))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, number)
    return process.wait()


class Log:
    """Lines of one part, and the time that is left to it."""

    def __init__(self, out, part, ends):
        self.out, self.part, self.ends = out, part, ends
        self.known = {line["name"] for line in read(out) if line["part"] == part and line["name"] != "skipped"}

    def left(self) -> float:
        return self.ends - time.monotonic()

    def tell(self, name, **found):
        tell(self.out, part=self.part, name=name, **found)

    def skipped(self, what, needs):
        """Whether this does not fit any more; told, so that the next call may take it up."""
        if self.left() >= needs:
            return False
        self.tell("skipped", what=what, why=f"needs about {needs:.0f} s, {self.left():.0f} s are left")
        return True


def tell(out, **line):
    """A line, on the disk before anything else is begun."""
    text = json.dumps(line)
    with open(out / "accelerator.jsonl", "a") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    print(text, flush=True)


def read(out):
    """All lines so far; a last one that was cut is left out."""
    lines = []
    path = out / "accelerator.jsonl"
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


def share_left(given, part):
    """Seconds of the visit that a part still has: 0 where it is done, or what is left of them is too short for it."""
    lines = [line for line in read(given.out) if line["part"] == part]
    left = SHARE_S[part] * (ON_CPU if given.device == "cpu" else 1)
    left -= sum(line["seconds"] for line in lines if line["name"] == "spent")
    return 0 if left < 2 * SPARE_S or any(line["name"] in ("done", "over") for line in lines) else left


def train(workdir, config, *flags, **environment):
    """A process of `runs/train.py` in a group of its own."""
    command = [sys.executable, "runs/train.py", f"--config={config}", f"--workdir={workdir}", *flags]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": open(f"{workdir}.log", "ab")}  # noqa: SIM115
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | environment, start_new_session=True, **quiet)


def resume(log, *, small):
    """The same run whole, whole and compiled anew (which may choose other algorithms), and killed in the middle."""
    model = "mlp" if small else "resnet20"
    flags = ["--config.train_epochs=0.0", "--config.train_steps=200", "--config.replicas=2"]
    flags += ["--config.reports=10", "--config.checkpoint.saves=10"]
    config = log.out.absolute() / "resume.py"
    config.write_text(THREE_ARMS.format(file=str(ROOT / "configs/images.py"), arms=("raw", "nearest")))
    took = 30.0
    for name, extra in (("as it comes", ""), ("deterministic", "--xla_gpu_deterministic_ops=true")):
        if small and extra:
            log.tell(name, why="a flag of GPUs, left out on a CPU")
            continue
        xla = {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {extra}".strip()}
        digests = {}
        for kind in ("whole", "compiled anew", "killed"):
            if log.skipped(f"{name}, {kind}", 2 * took):
                return
            workdir, began = log.out.absolute() / f"resume {name} {kind}".replace(" ", "_"), time.monotonic()
            words = (workdir, f"{config}:digits,{model}", *flags)
            xla |= {"JAX_ENABLE_COMPILATION_CACHE": "0" if kind == "compiled anew" else "1"}
            process, killed = train(*words, **xla), {}
            if kind == "killed":
                killed = {"killed": kill_after_a_checkpoint(process, workdir, log.left())}
                process = train(*words, **xla)
            code, digests[kind] = wait(process, log.left()), digest(workdir)
            took = max(took, time.monotonic() - began)
            seconds = round(time.monotonic() - began, 1)
            log.tell(f"{name}, {kind}", exit=code, digest=digests[kind], seconds=seconds, **killed)
        if None in digests.values():
            log.tell(name, why=f"a run did not come to its end: see {log.out}/*.log")
            continue
        again, killed = (digests[kind] == digests["whole"] for kind in ("compiled anew", "killed"))
        log.tell(name, xla_flags=extra, same_bytes_compiled_anew=again, same_bytes_killed=killed)
    log.tell("done")


def kill_after_a_checkpoint(process, workdir, seconds):
    """kill -9 as soon as a checkpoint is whole; False where the run was over by then."""
    ends = time.monotonic() + seconds
    while process.poll() is None and not list(workdir.glob("checkpoints/*/*.sha256")) and time.monotonic() < ends:
        time.sleep(0.02)
    running = process.poll() is None
    if running:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return running


def digest(workdir):
    """Of the numbers of a run, every report and all replicas; None where it did not come to its end."""
    if not (workdir / "summary.json").exists():
        return None
    content = b"".join((workdir / name).read_bytes() for name in ("metrics.jsonl", "results.csv"))
    return hashlib.sha256(content).hexdigest()[:16]


def images(log, given):
    """Stopped by SIGTERM when the time is up, which saves: the next call goes on, reference first."""
    small = given.device == "cpu"
    config = log.out.absolute() / "images.py"
    config.write_text(THREE_ARMS.format(file=str(ROOT / "configs/images.py"), arms=("raw", "nearest", "expanded")))
    workdir, words = log.out.absolute() / "images", "digits,mlp,smoke" if small else given.images
    began = time.monotonic()
    code = wait(train(workdir, f"{config}:{words}", *given.flags.split()), log.left() - SPARE_S)
    status = workdir / "status.json"
    found = json.loads(status.read_text()) if status.exists() else {"status": "not begun"}
    log.tell("images", words=words, exit=code, seconds=round(time.monotonic() - began, 1),
             **{name: found[name] for name in ("status", "arm", "step", "of") if name in found})  # fmt: skip
    if found["status"] in ("done", "diverged"):
        log.tell("done")


if __name__ == "__main__":
    main()
