"""Claims of papers as data, `results/claims.json`, and where our numbers to them stand.

The file holds `schema`, `papers` (`{arXiv number: what it is about, in our words}`) and `claims`, a list of

`id`
    a name for the command line, such as 'expansion-qcd-pressure';
`paper`, `where`
    arXiv number, and figure, table or abstract;
`claim`
    one sentence of ours about what is claimed;
`published`
    `{"text", "known"}` and, where there is one, `value`: the published number; known is how sure it is, see `KNOWN`;
`ours`
    cells of records, a list of `{"record", "row", "column"}` and, where there are several, what each one is (`said`); a
    row is given by cells of it, `{"arm": "raw"}`; [] where there are none;
`controls`
    likewise, the cells that say whether something else explains the result; [] where there are none;
`verdict`
    `{"rule", ..}`, see `sbjax.claims.verdicts`;
`command`
    of a claim without a record, what would run it; left out where the record has one;
`check`
    left out, or how the command is run again at a small scale, see `sbjax.runner.rerun`.
"""

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sbjax.claims import markdown, verdicts
from sbjax.claims.records import Record, RecordError, commands, load_all
from sbjax.common.files import misfit
from sbjax.common.names import near

KNOWN = {
    "stated": "read in the paper's abstract, captions or tables, or in its authors' code",
    "transcribed": "read in others' transcription of the paper's tables; the numbers of parameters in it were checked",
    "second hand": "read in a summary of the paper or of a talk on it; likely, not certain",
    "inferred": "our reading of a caption or of the authors' code: what is plotted is known, the values are not",
}
_FIELDS = ("id", "paper", "where", "claim", "published", "ours", "controls", "verdict", "command", "check")
_CELL = {"record", "row", "column"}

Claim = dict[str, Any]


class Found(NamedTuple):
    """A cell that a claim names.

    Attributes:
        record: 'experiment/name'.
        cell: a cell of a record, see `sbjax.claims.records`.
        text: as its column shows it, with what it is and its unit.
    """

    record: str
    cell: Any
    text: str


class Claims(NamedTuple):
    """What `results/claims.json` holds."""

    papers: dict[str, str]
    claims: tuple[Claim, ...]


def load(path: str | os.PathLike) -> Claims:
    """The claims of a file.

    Raises:
        FileNotFoundError: there is none.
        RecordError: a claim that the module's description does not allow, with its id and field.
    """
    path = pathlib.Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecordError(f"{path}: is no JSON ({error})") from error
    if problem := misfit(content, {"papers": {str: str}, "claims": [dict]}):
        raise RecordError(f"{path}: {problem}")
    claims, papers = tuple(content["claims"]), dict(content["papers"])
    for number, claim in enumerate(claims):
        _check(claim, papers, f"{path}: {claim.get('id', f'claims[{number}]')}")
    ids = [claim["id"] for claim in claims]
    if twice := sorted({name for name in ids if ids.count(name) > 1}):
        raise RecordError(f"{path}: {', '.join(twice)}: two claims with one id; rename one of them")
    return Claims(papers, claims)


def find(claims: Claims, name: str) -> Claim:
    """The claim with an id.

    Raises:
        RecordError: there is none.
    """
    for claim in claims.claims:
        if claim["id"] == name:
            return claim
    ids = [claim["id"] for claim in claims.claims]
    raise RecordError(f"claim {name!r} is unknown{near(name, ids)}; known: {', '.join(ids)}")


def look_up(references: Sequence[Mapping[str, Any]], records: Mapping[str, Record]) -> list[Found]:
    """The cells that a claim names, in its order.

    Raises:
        RecordError: no such record, row or column, or several rows.

    >>> record = {'rows': [{'cells': {'arm': 'raw', 'x': 1.5}}], 'columns': [{'key': 'x', 'name': 'x', 'decimals': 1}]}
    >>> look_up([{'record': 'a/b', 'row': {'arm': 'raw'}, 'column': 'x', 'said': 'raw'}], {'a/b': record})[0].text
    'raw: 1.5'
    """
    found = []
    for reference in references:
        name, key = reference["record"], reference["column"]
        if name not in records:
            raise RecordError(f"record {name!r} is unknown{near(name, records)}")
        record = records[name]
        rows = [
            row["cells"]
            for row in record["rows"]
            if all(row["cells"].get(column) == value for column, value in reference["row"].items())
        ]
        if len(rows) != 1:
            raise RecordError(f"record {name!r} has {len(rows)} rows with {reference['row']}; name exactly one")
        columns = [column for column in record["columns"] if column["key"] == key]
        if not columns:
            raise RecordError(f"record {name!r} has no column {key!r}")
        value = rows[0].get(key)
        said = f"{reference['said']}: " if reference.get("said") else ""
        unit = f" {columns[0]['unit']}" if columns[0].get("unit") else ""
        found.append(Found(name, value, said + markdown.cell(value, columns[0]) + unit))
    return found


def verdict(claim: Claim, records: Mapping[str, Record]) -> verdicts.Verdict:
    """What the records say about a claim now.

    Raises:
        RecordError: a cell that is not there, or a rule that cannot be applied to it.
    """
    ours = [one.cell for one in look_up(claim["ours"], records)]
    controls = [one.cell for one in look_up(claim["controls"], records)]
    try:
        return verdicts.judge(claim["verdict"], ours, controls, claim["published"].get("value"))
    except ValueError as error:
        raise RecordError(f"{claim['id']}: {error}") from error


def lost(folder: str | os.PathLike) -> list[str]:
    """Ids of the claims in `folder/claims.json` whose cells the records do not have (any more), or cannot be judged."""
    found, path = load_all(folder), pathlib.Path(folder) / "claims.json"
    bad = []
    for claim in load(path).claims if path.exists() else ():
        try:
            verdict(claim, found)
        except RecordError:
            bad.append(claim["id"])
    return bad


def claim_commands(claim: Claim, records: Mapping[str, Record]) -> list[str]:
    """The shell commands that make the numbers of a claim."""
    if "command" in claim:
        return [claim["command"]]
    names = dict.fromkeys(reference["record"] for reference in claim["ours"])
    return list(dict.fromkeys(command for name in names for command in commands(records[name])))


def _check(claim: Mapping[str, Any], papers: Mapping[str, str], where: str) -> None:
    for name in claim:
        if name not in _FIELDS:
            raise RecordError(f"{where}: {name} is unknown{near(name, _FIELDS)}; known: {', '.join(_FIELDS)}")
    for name in _FIELDS[:8]:
        if name not in claim:
            raise RecordError(f"{where}: {name} is missing")
    if claim["paper"] not in papers:
        raise RecordError(f"{where}: paper={claim['paper']!r} is not among {', '.join(papers)}")
    if claim["published"].get("known") not in KNOWN:
        raise RecordError(f"{where}: published.known must be one of {', '.join(KNOWN)}")
    for reference in (*claim["ours"], *claim["controls"]):
        if not set(reference) - {"said"} == _CELL:
            raise RecordError(f"{where}: {reference} must have {', '.join(sorted(_CELL))} and may have said")
    try:
        verdicts.check(claim["verdict"], len(claim["ours"]))
    except ValueError as error:
        raise RecordError(f"{where}: {error}") from error
