"""Image sets that stay on disk: host memory, and whether the training step waits for images.

    pip install -e '.[stream]' && python benchmarks/streaming.py
    python benchmarks/streaming.py --images=5000 --folder=/tmp/pictures

Makes a folder of JPEG pictures (96 x 80 pixels, some 3 kB each), and trains on it from disk at 64 pixels, batch 128.
Memory is that of this process and all that it started, each page once (PSS), at its largest in a training of an MLP, so
that little of it is the network's. Waiting is the median step of a ResNet-18 with the ImageNet stem from disk over that
of the same step with the batch in memory, both with one decoding process less than cores.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
from common import figure

BATCH, SIZE = 128, 64
MEMORY = """
import sys
import jax
from sbjax.data.streaming import open_stream
from sbjax.models import make_model
from sbjax.optimizers import Sgd
from sbjax.tasks.images import make_image_task
from sbjax.training.fit import fit

stream = open_stream(f"folder:{sys.argv[1]}", image_size=64, cache_dir=sys.argv[2])
net = make_model("mlp", classes=stream.classes, widths=(64,))
task = make_image_task(stream, net, batch_size=128, eval_share=0.05)
fit(task, Sgd().make(0.01), steps=int(sys.argv[3]), replicas=1, reports=2, key=jax.random.key(0))
task.stream.close()
"""


def write(folder: pathlib.Path, count: int) -> None:
    """`count` pictures of coloured blobs in ten classes."""
    from PIL import Image

    rng = np.random.default_rng(0)
    pool = [
        Image.fromarray(rng.integers(0, 256, (10, 12, 3), np.uint8)).resize((96, 80), Image.Resampling.BICUBIC)
        for _ in range(500)
    ]
    for i in range(count):
        path = folder / f"class_{i % 10}" / f"{i:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pool[i % len(pool)].rotate(i // len(pool)).save(path, quality=90)


def tree(pid: int) -> list[int]:
    """A process and all that it started."""
    found = [pid]
    for one in found:
        try:
            for thread in pathlib.Path(f"/proc/{one}/task").iterdir():
                found += map(int, (thread / "children").read_text().split())
        except OSError:
            continue
    return found


def kilobytes(pid: int) -> int:
    """PSS of a process: a page that n processes share counts a n-th."""
    try:
        lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def peak(folder, cache, steps) -> tuple[float, float]:
    """Largest memory of a training, in GB, and that of its first process alone."""
    process = subprocess.Popen([sys.executable, "-c", MEMORY, str(folder), str(cache), str(steps)])
    most, first = 0, 0
    while process.poll() is None:
        each = [kilobytes(pid) for pid in tree(process.pid)]
        most, first = max(most, sum(each)), max(first, each[0])
        time.sleep(0.1)
    if process.returncode:
        sys.exit(f"error: the training ended with {process.returncode}")
    return most * 1024 / 1e9, first * 1024 / 1e9


def waiting(folder, cache, rounds) -> tuple[float, float, float]:
    """Median seconds of a step from disk and from memory, and images a second that one process decodes."""
    import jax

    from sbjax.data.streaming import Batches, open_stream
    from sbjax.models import make_model
    from sbjax.optimizers import Sgd
    from sbjax.tasks.images import make_image_task
    from sbjax.training.placement import Placement, Program

    stream = open_stream(f"folder:{folder}", image_size=SIZE, cache_dir=cache)
    net = make_model("resnet18", classes=stream.classes, stem="imagenet")
    task = make_image_task(stream, net, batch_size=BATCH, eval_share=0.001)
    program = Program(task, Sgd().make(0.01), placement=Placement(), replicas=1, key=jax.random.key(0))
    carry, batch = program.advance(program.init(), 0, 1), task.stream.train(1)
    seconds: dict[str, list[float]] = {"disk": [], "memory": []}
    read = task.stream.train

    class Kept:
        """The same batch at every step."""

        def train(self, step):
            return read(step) if which == "disk" else batch

    program._task = task._replace(stream=Kept())
    for step in range(2, 2 + rounds):
        for which in ("disk", "memory"):
            began = time.perf_counter()
            carry = program.advance(carry, step, step + 1)
            seconds[which].append(time.perf_counter() - began)
    task.stream.close()
    alone, began = Batches(stream.train, batch_size=BATCH), time.perf_counter()
    for step in range(8):
        alone._batches[step]
    speed = 8 * BATCH / (time.perf_counter() - began)
    return float(np.median(seconds["disk"])), float(np.median(seconds["memory"])), speed


def main() -> None:
    """Make the set and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--folder", type=pathlib.Path, help="where pictures are kept; default: nowhere")
    parser.add_argument("--steps", type=int, default=200, help="of the training whose memory is measured")
    parser.add_argument("--rounds", type=int, default=15, help="steps that are timed")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or pathlib.Path(scratch) / "pictures"
        if not folder.is_dir():
            write(folder, given.images)
        few = pathlib.Path(scratch) / "few"
        write(few, 2000)
        size, first = peak(folder, scratch, given.steps)
        small, _ = peak(few, scratch, given.steps)
        figure(
            f"host memory, {given.images} streamed images", size, unit="GB", bar=1.0, first_process=first, of_2000=small
        )
        disk, memory, speed = waiting(folder, scratch, given.rounds)
        figure(
            "training step, ResNet-18 at 64 px, images from disk over a batch in memory",
            disk / memory,
            unit="ratio",
            bar=1.05,
            disk_ms=1e3 * disk,
            memory_ms=1e3 * memory,
            decoded_images_a_second_and_process=speed,
        )


if __name__ == "__main__":
    main()
