"""Whether a finished run is as it was left: digests of its files in `status.json`, and what to say of changes."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from sbjax.common.files import FileError, changed, digest, read_json

logger = logging.getLogger(__name__)

STATUS = {"status": str, "inputs?": {str: str}, "made?": {str: str}}
"""The form of `status.json`: of a finished run, with the SHA-256 of what it left and of what was made from that."""

MADE = ("results.csv", "summary.json", "report.html")
"""What `sbjax.report.page.build_report` makes, beside `figures/`; it can be made again at any time."""

_LATER = ("status.json", "classical.json", "ranking.json", "measures.json", "against.html")
_APART = ("checkpoints", "tensorboard", "evidence", "damaged", "figures")


def digests_of_inputs(workdir: Path) -> dict[str, str]:
    """SHA-256 of everything in a folder that reports are made from, by relative path."""
    names = (path.relative_to(workdir) for path in sorted(workdir.rglob("*")) if path.is_file())
    return {
        name.as_posix(): digest(workdir / name)
        for name in names
        if name.suffix in (".json", ".jsonl", ".npz") and name.parts[0] not in (*_APART, *_LATER, *MADE)
    }


def digests_of_made(workdir: Path) -> dict[str, str]:
    """SHA-256 of everything that was made from it."""
    paths = [workdir / name for name in MADE] + sorted((workdir / "figures").glob("*"))
    return {path.relative_to(workdir).as_posix(): digest(path) for path in paths if path.is_file()}


def changed_since_finished(workdir: Path) -> tuple[str, ...]:
    """The files that a finished run left and that hold something else now, or are missing; () for any other run.

    Raises:
        FileError: `status.json` cannot be read.
    """
    try:
        digests = read_json(workdir / "status.json", STATUS).get("inputs", {})
    except FileNotFoundError:
        return ()
    return tuple(changed(workdir, digests))


@contextlib.contextmanager
def told_of_changes(workdir: Path, names: Sequence[str]) -> Iterator[None]:
    """Say of an error in a folder that is not known to be whole that it is the files, and what to do.

    Raises:
        FileError: in place of whatever a function raised that met a file with something else than it expected.
    """
    if names:
        logger.warning("%s: %s", workdir, said_of_changes(names))
    try:
        yield
    except FileError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        if not names:
            raise
        raise FileError(f"{workdir}: {said_of_changes(names)} ({type(error).__name__}: {error})") from error


def said_of_changes(names: Sequence[str]) -> str:
    """A sentence about files that were changed since their run finished.

    >>> said_of_changes(['metrics.jsonl'])[:52]
    'Changed since the run finished: metrics.jsonl (SHA-2'
    """
    return (
        f"Changed since the run finished: {', '.join(names)} (SHA-256 differs). Numbers made from them may be wrong or "
        "missing: start the command of the run again, which makes them anew"
    )
