"""What the report of text classifiers adds: differences paired over documents, and several folds together."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Real

from sbjax.common.files import REMEDY, FileError, plain, read_arrays, write_atomically, write_json
from sbjax.report import statistics, tables
from sbjax.report import suite as suite_lib
from sbjax.report.corrected import with_corrected
from sbjax.report.results import Results
from sbjax.report.sections import Note, Section, Table
from sbjax.report.suite import SuiteReport

FOLDER = "predictions"
METRIC = "test/accuracy"
RESAMPLES = 2000

_DOCUMENTS = (
    "Accuracy on the test texts at the last step, the mean over seeds, in percent; the difference to {reference} with "
    "a 95 % bootstrap interval over documents. It says what other texts of this kind could have given, where the "
    "interval over seeds says what other trainings could have given."
)
_STOPPED = " Seeds that stopped do not count, in a difference those that stopped in either arm."
_POOLED = (
    "All folds together: every text is tested once. Of each seed the accuracy over all texts, paired by seed; "
    "{count} comparisons, 'corrected' is the verdict after Holm's procedure. Folds: {folds}."
)


class Documents(NamedTuple):
    """A difference over documents, in shares: its value and the bootstrap interval."""

    value: float
    low: float
    high: float


def save_predictions(
    workdir: Path, arm: str, correct: Bool[np.ndarray, "replica document"], stopped: Sequence[int] = ()
) -> None:
    """Write `predictions/<arm>.npz`: which test texts each replica classifies rightly; `stopped` ones count nowhere."""
    content = io.BytesIO()
    np.savez_compressed(content, correct=correct, finished=~np.isin(np.arange(len(correct)), list(stopped)))
    (workdir / FOLDER).mkdir(exist_ok=True)
    write_atomically(workdir / FOLDER / f"{arm}.npz", content.getvalue())


def load_predictions(workdir: Path, arms: Sequence[str]) -> dict[str, Float[np.ndarray, "replica document"]]:
    """1 where a text is classified rightly and 0 elsewhere, NaN for replicas that stopped, by arm; arms without a file
    are left out.

    Raises:
        FileError: a file is damaged.
    """
    paths = {arm: workdir / FOLDER / f"{arm}.npz" for arm in arms}
    found = {}
    for arm, path in paths.items():
        if not path.exists():
            continue
        arrays = {"correct": np.zeros(0), **read_arrays(path)}
        correct = arrays["correct"]
        if correct.dtype != bool or correct.ndim != 2 or not correct.size:
            raise FileError(
                f"{path}: its array is {correct.dtype}{list(correct.shape)} and not bool [replica, document]; {REMEDY}"
            )
        finished = arrays.get("finished", np.ones(len(correct), bool))
        if finished.dtype != bool or finished.shape != correct.shape[:1]:
            raise FileError(
                f"{path}: 'finished' is {finished.dtype}{list(finished.shape)} and not bool [replica]; {REMEDY}"
            )
        found[arm] = np.where(finished[:, None], correct, np.nan)
    return found


def over_documents(
    reference: Real[np.ndarray, "replica document"], other: Real[np.ndarray, "replica document"], *, seed: int = 0
) -> Documents:
    """Difference of accuracy with a percentile bootstrap interval over documents, the mean over replicas.

    Replicas with NaN in either, which stopped, do not count; NaN where none is left.

    >>> right = np.ones((2, 100), bool)
    >>> over_documents(right, right)
    Documents(value=0.0, low=0.0, high=0.0)
    """
    both = np.isfinite(reference.mean(1)) & np.isfinite(other.mean(1))
    if not both.any():
        return Documents(np.nan, np.nan, np.nan)
    gains = other[both].mean(0) - reference[both].mean(0)
    rng, count = np.random.default_rng(seed), len(gains)
    means = [gains[rng.integers(count, size=count)].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return Documents(float(gains.mean()), float(low), float(high))


def report(results: Results, workdir: Path) -> list[Section]:
    """Differences over documents of one run."""
    return _section(results.reference, load_predictions(workdir, results.arms))


def _section(reference: str, found: dict[str, Float[np.ndarray, "replica document"]]) -> list[Section]:
    if reference not in found:
        return []
    count = found[reference].shape[1]
    rows = [[reference, _mean(found[reference]), tables.NONE]]
    for arm, correct in found.items():
        if arm != reference and correct.shape == found[reference].shape:
            gain = over_documents(found[reference], correct)
            shown = f"{100 * gain.value:+.2f} [{100 * gain.low:+.2f}, {100 * gain.high:+.2f}]"
            rows.append([arm, _mean(correct), shown if np.isfinite(gain.value) else tables.NONE])
    stopped = any(np.isnan(correct).any() for correct in found.values())
    note = Note(_DOCUMENTS.format(reference=reference) + _STOPPED * stopped)
    return [Section(f"Paired over {count} documents", [Table(["arm", METRIC, f"minus {reference}"], rows), note])]


def suite_report(folder: Path, names: Sequence[str]) -> SuiteReport:
    """The report of every suite, and, of runs that are folds of one set, all of them together."""
    members = [member for member in suite_lib.load_members(folder, names) if member.results]
    pooled = _pooled(folder, members)
    if pooled is None:
        return suite_lib.suite_report(folder, names)
    sections, table, numbers = pooled
    made = suite_lib.suite_report(folder, names, first=sections)
    summary = {**made.summary, "pooled": plain(numbers)}
    write_json(folder / "summary.json", summary)
    return SuiteReport(f"{table}\n\n{made.table}", made.path, summary)


def _pooled(folder: Path, members: Sequence[Any]) -> tuple[list[Section], str, dict[str, Any]] | None:
    """Sections, the table for the terminal and the numbers of several folds; None where the runs are none."""
    settings = [member.results.config.get("task", {}) for member in members]
    folds = [one.get("test_fold", 0) for one in settings]
    same = {repr({**one, "test_fold": 0}) for one in settings}
    if len(members) < 2 or len(same) > 1 or len(set(folds)) < len(folds):
        return None
    first = members[0].results
    found: dict[str, list[np.ndarray]] = {arm: [] for arm in first.arms}
    for member in members:
        for arm, correct in load_predictions(folder / member.name, first.arms).items():
            found[arm].append(correct)
    whole = {
        arm: np.concatenate(parts, axis=1)
        for arm, parts in found.items()
        if len(parts) == len(members) and len({len(part) for part in parts}) == 1
    }
    if first.reference not in whole:
        return None
    accuracy: dict[str, Float[np.ndarray, replica]] = {arm: correct.mean(1) for arm, correct in whole.items()}
    others = [arm for arm in whole if arm != first.reference]
    compared = [statistics.paired(accuracy[first.reference], accuracy[arm])._asdict() for arm in others]
    corrected = dict(zip(others, with_corrected(compared, confidence=0.95)))
    headers = ["arm", "median [quartiles]", f"minus {first.reference}", "95 % interval", "p", "improved", "verdict",
               "corrected"]  # fmt: skip
    rows = []
    for arm in whole:
        cells = [arm, tables.spread(METRIC, statistics.describe(accuracy[arm])._asdict())]
        if arm in corrected:
            one = corrected[arm]
            cells += [tables.difference(METRIC, one["difference"]), tables.interval(METRIC, one),
                      tables.p_value(one["p_value"]), tables.improved(one), one["verdict"],
                      one["verdict_corrected"]]  # fmt: skip
        rows.append([*cells, *[tables.NONE] * (len(headers) - len(cells))])
    note = _POOLED.format(count=len(others), folds=", ".join(map(str, sorted(folds))))
    sections = [Section("All folds together", [Table(headers, rows), Note(note)]), *_section(first.reference, whole)]
    documents = {arm: over_documents(whole[first.reference], whole[arm])._asdict() for arm in others}
    numbers = {"reference": first.reference, "accuracy": accuracy, "comparisons": corrected, "documents": documents}
    return sections, "\n".join([*tables.columns([headers, *rows]), *tables.wrap(note)]), numbers


def _mean(correct: Float[np.ndarray, "replica document"]) -> str:
    """Accuracy in percent over the replicas that did not stop."""
    each = correct.mean(1)
    return f"{100 * each[np.isfinite(each)].mean():.2f}" if np.isfinite(each).any() else tables.NONE
