"""A callback in a file of your own: one line in a text file for every report.

    python runs/train.py --config=configs/quickstart.py:smoke --workdir=/tmp/smoke \
        --config.callbacks=docs/examples/my_callback.py:note
"""

from sbjax.frame.callbacks import Event


def note(event: Event) -> None:
    """Append arm, step and the mean test accuracy to `notes.txt` of the workdir."""
    values = [x for x in event.metrics.get("test/accuracy", []) if x is not None]
    mean = sum(values) / len(values) if values else float("nan")
    with open(event.workdir / "notes.txt", "a") as file:
        file.write(f"{event.arm} {event.step} {mean:.4f}\n")
