"""A claim's command once more, at a small scale, and its numbers beside those on record.

The field `check` of a claim holds `smoke` and `quick`, shell commands without a workdir (either may be missing), and
`ours` and `controls`, readings of the workdir (`sbjax.claims.readings`) in the order of the cells of the same name. A
smoke run has two replicas and a few steps: it shows that the command works and what is read, and nothing else.
"""

import os
import pathlib
import shlex
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from sbjax.claims import markdown, pages, published, readings, verdicts
from sbjax.claims.published import Claim
from sbjax.claims.records import Record, RecordError
from sbjax.common.names import expanded

SCALES = ("smoke", "quick")


class Rerun(NamedTuple):
    """A claim that was run again.

    Attributes:
        claim: its id.
        scale: 'smoke' or 'quick'.
        command: what was run.
        then, now: numbers on record and of the new run, as text; the controls follow.
        before, after: the verdicts.
    """

    claim: str
    scale: str
    command: str
    then: tuple[str, ...]
    now: tuple[str, ...]
    before: verdicts.Verdict
    after: verdicts.Verdict


def check(claim: Claim) -> None:
    """Refuse a `check` that could not be run.

    Raises:
        RecordError: with the claim and the field.
    """
    found = claim.get("check")
    if found is None:
        return
    if not set(SCALES) & set(found) or set(found) - {*SCALES, "ours", "controls"}:
        raise RecordError(f"{claim['id']}: check must have smoke or quick, ours and controls, and nothing else")
    for name in ("ours", "controls"):
        if len(found.get(name, ())) not in (0, len(claim[name])):
            raise RecordError(f"{claim['id']}: check.{name} must have none or {len(claim[name])} readings, one a cell")
        for reading in found.get(name, ()):
            try:
                readings.check(reading)
            except ValueError as error:
                raise RecordError(f"{claim['id']}: check.{name}: {error}") from error


def arguments(claim: Claim, scale: str, workdir: str | os.PathLike) -> tuple[list[str], dict[str, str]]:
    """The words of the command with its workdir, this Python in place of `python`, and what it adds to the environment.

    Raises:
        RecordError: the claim has no command at this scale.
    """
    found = claim.get("check") or {}
    if scale not in found:
        known = [one for one in SCALES if one in found]
        remedy = f"give --scale={known[0]}" if known else "its command is in docs/claims.md"
        raise RecordError(f"{claim['id']}: has no command at scale {scale!r}; {remedy}")
    words = shlex.split(found[scale])
    environment = {}
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        environment[name] = value
    script, flags = pathlib.PurePath(words[1]), words[2:]  # python runs/NAME.py ..: as a module it starts anywhere
    start = [sys.executable, "-m", "sbjax", script.stem] if script.parent.name == "runs" else [sys.executable, words[1]]
    return [*start, *flags, f"--workdir={os.fspath(workdir)}"], environment


def run_claim(name: str, *, scale: str, workdir: str | os.PathLike, root: str | os.PathLike = ".") -> str:
    """`run` of the claim with an id in a clone of the repository, as text.

    Raises:
        RecordError: as `run`, or there is no such claim.
    """
    found, claims, _ = pages.load(root)
    return text(run(published.find(claims, name), found, scale=scale, workdir=workdir, root=root))


def run(
    claim: Claim,
    records: Mapping[str, Record],
    *,
    scale: str,
    workdir: str | os.PathLike,
    root: str | os.PathLike,
) -> Rerun:
    """Run the command of a claim, in the root of the repository, and read its numbers.

    Args:
        claim, records: what is on record.
        scale: 'smoke' or 'quick'.
        workdir: folder of the run; a finished one is not run again.
        root: where the command starts.

    Raises:
        RecordError: no such scale, a command that failed, or a workdir without the numbers.
    """
    workdir = expanded(workdir)
    words, environment = arguments(claim, scale, workdir)
    done = subprocess.run(words, cwd=root, env={**os.environ, **environment}, stdout=sys.stderr, check=False)
    if done.returncode:
        raise RecordError(f"{claim['id']}: the command ended with exit code {done.returncode}: {shlex.join(words)}")
    return compare(claim, records, workdir=workdir, scale=scale, command=shlex.join(words))


def compare(
    claim: Claim, records: Mapping[str, Record], *, workdir: str | os.PathLike, scale: str = "quick", command: str = ""
) -> Rerun:
    """The numbers of a claim on record and in a workdir.

    Raises:
        RecordError: the workdir does not have them.
    """
    now: dict[str, list[Any]] = {
        name: [readings.read(pathlib.Path(workdir), reading) for reading in claim["check"].get(name, ())]
        for name in ("ours", "controls")
    }
    then = published.look_up([*claim["ours"], *claim["controls"]], records)
    said = [f"{one['said']}: " if one.get("said") else "" for one in (*claim["ours"], *claim["controls"])]
    offset = len(claim["ours"])
    shown = [(text, cell) for text, cell in zip(said, now["ours"])]
    shown += [(text, cell) for text, cell in zip(said[offset:], now["controls"])]
    before = published.verdict(claim, records)
    try:
        after = verdicts.judge(claim["verdict"], now["ours"], now["controls"], claim["published"].get("value"))
    except ValueError as error:
        after = verdicts.Verdict(verdicts.SHORT, claim["verdict"]["rule"], str(error))
    return Rerun(
        claim["id"],
        scale,
        command,
        tuple(one.text for one in then),
        tuple(text + markdown.cell(cell, {"digits": 3}) for text, cell in shown),
        before,
        after,
    )


def text(found: Rerun) -> str:
    """A rerun for the terminal."""
    judged = found.after.rule in ("by hand", "not run")
    after = "judged by hand: not judged again" if judged else found.after.word
    after += " (a smoke run shows that the command works, and no more)" if found.scale == "smoke" else ""
    lines = [f"claim    {found.claim}", f"command  {found.command}"]
    lines += [f"then     {one}" for one in found.then] + [f"         verdict: {found.before.word}"]
    lines += [f"now      {one}" for one in found.now] + [f"         verdict: {after}"]
    if found.after.reason and found.after.reason != found.before.reason:
        lines.append(f"         {found.after.reason}")
    return "\n".join(lines)
