"""Run the tests of faults that were found by use, and print how many cases of each were tried and how many were right.

python tests/faults/run.py                # all of them, some minutes
python tests/faults/run.py R4 U1          # some
python tests/faults/run.py --quick        # without the extended cases
"""

import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.faults.rows import ROWS  # noqa: E402


class Count:
    """A plugin of pytest that keeps how each case ended, by the id of its test."""

    def __init__(self):
        self.ended = {}

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome != "passed":
            cases = self.ended.setdefault(report.nodeid.partition("[")[0], {})
            cases[report.nodeid] = report.outcome if cases.get(report.nodeid) != "failed" else "failed"


def main(argv):
    """The exit code: 0 where all is right."""
    quick = "--quick" in argv
    asked = [word for word in argv if word != "--quick"] or list(ROWS)
    if unknown := [word for word in asked if word not in ROWS]:
        sys.exit(f"error: {unknown[0]!r} is no fault; known: {', '.join(ROWS)}")
    ids = sorted({name for row in asked for name in ROWS[row][1]})
    count = Count()
    options = ["-q", "--no-header", "-p", "no:cacheprovider", "--durations=0", "--durations-min=1e9"]
    options += ["-m", "not extended" if quick else ""]
    code = pytest.main([*options, *(str(ROOT / name) for name in ids), f"--rootdir={ROOT}"], plugins=[count])
    wide = max(len(ROWS[row][0]) for row in asked)
    lines = [f"\n{'':4} {'fault':{wide}} tried right"]
    bad = 0
    for row in asked:
        what, names = ROWS[row]
        ended = [outcome for name in names for outcome in count.ended.get(name, {}).values()]
        tried = [outcome for outcome in ended if outcome != "skipped"]
        right = tried.count("passed")
        skipped = len(ended) - len(tried)
        note = f"  {skipped} skipped" * bool(skipped) + "  nothing was tried" * (not tried)
        lines.append(f"{row:4} {what:{wide}} {len(tried):5} {right:5}{note}")
        bad += right < len(tried) or not tried
    sys.stdout.write("\n".join(lines) + "\n")
    return int(bool(bad) or code not in (0, 5))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
