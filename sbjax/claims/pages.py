"""All pages that are made from `results/`: a page of results an experiment, claims, speed, the figure of the README.

    python -m sbjax.claims.pages            # write them, in a clone of the repository
    python -m sbjax.claims.pages --check    # say which ones differ from their records, and write nothing

Every number on them comes from a record, and a test compares the two. In pages that are written by hand, a table of a
record stands between `<!-- record EXPERIMENT/NAME -->` and `<!-- end of record -->`, and is written as well.
"""

import os
import pathlib
import re
import sys
from collections.abc import Mapping, Sequence

from sbjax.claims import figure, markdown, published, records, verdicts
from sbjax.claims.published import Claims
from sbjax.claims.records import Record, RecordError
from sbjax.common.files import write_atomically

MADE = "<!-- Made from results/ by `python -m sbjax.claims.pages`: change the records, not this page. -->\n\n"
SPEED = "speed"
EXPERIMENTS = {
    "quickstart": "Quickstart",
    "images": "Images",
    "text": "Sentiment of texts",
    "colour": "Colourisation",
    "pdes": "Differential equations",
    "qcd": "QCD equation of state",
    "functions": "Functions of one variable",
    "ising": "Ising model",
    "landscape": "Geometry of the loss landscape",
    "exact": "Closed forms",
    "lmc": "Linear mode connectivity",
    "mli": "Monotonic linear interpolation",
    "graphs": "Graph networks",
    "identifiability": "Neuron identifiability",
    "zoo": "Zoos of networks",
    "metanets": "Networks that read networks",
    "bayes": "Bayesian networks",
    "designs": "Designs and the replica distance",
}
"""Titles of pages, in the order of the list of pages; an experiment that is not named here comes last."""

_BLOCK = re.compile(r"(<!-- record (\S+) -->\n).*?(<!-- end of record -->)", re.DOTALL)


def make(found: Mapping[str, Record], claims: Claims, written: Mapping[str, str]) -> dict[str, str]:
    """All generated pages, by path in the repository.

    Args:
        found: records by 'experiment/name', as `records.load_all` returns them.
        claims: as `published.load` returns them.
        written: pages by hand, by path: those with a record in them are returned with its table.

    Raises:
        RecordError: a page by hand, or a claim, names a record that is not there.
    """
    by_experiment: dict[str, dict[str, Record]] = {}
    for name, record in found.items():
        by_experiment.setdefault(name.split("/")[0], {})[name] = record
    pages = {
        f"docs/results/{experiment}.md": results_page(experiment, own)
        for experiment, own in by_experiment.items()
        if experiment != SPEED
    }
    pages["docs/results/index.md"] = index_page(by_experiment)
    pages["docs/claims.md"] = claims_page(claims, found)
    if SPEED in by_experiment:
        pages["docs/speed.md"] = speed_page(by_experiment[SPEED])
    if "quickstart/quickstart" in found:
        pages["docs/quickstart.svg"] = figure.paired_dots(
            found["quickstart/quickstart"],
            title="Handwritten digits: a dot a seed, a line joins the same seed",
            axis="test accuracy, %",
        )
    return pages | {path: filled(text, found, path) for path, text in written.items() if _BLOCK.search(text)}


def results_page(experiment: str, found: Mapping[str, Record]) -> str:
    """The page of an experiment: a section a record."""
    sections = [markdown.section(name, record) for name, record in found.items()]
    return MADE + "\n".join([f"# {_title(experiment)}\n", *sections])


def index_page(by_experiment: Mapping[str, Mapping[str, Record]]) -> str:
    """The list of pages of results."""
    order = [*EXPERIMENTS, *sorted(set(by_experiment) - set(EXPERIMENTS))]
    rows = [
        [
            f"[{_title(name)}]({name}.md)",
            record["title"],
            markdown.scale(record),
            record["origin"]["date"],
        ]
        for name in order
        if name in by_experiment and name != SPEED
        for record in by_experiment[name].values()
    ]
    text = (
        "All numbers are ours unless a row or column says *published*. Each table is a record in `results/`, with the "
        "command that makes it. What they say about published claims: [claims](../claims.md). How fast it runs: "
        "[speed](../speed.md)."
    )
    return f"{MADE}# Results\n\n{text}\n\n{markdown.grid(['page', 'table', 'scale', 'date'], rows)}\n"


def claim_rows(claims: Claims, found: Mapping[str, Record]) -> list[dict[str, str]]:
    """A row a claim, as text by column."""
    rows = []
    for claim in claims.claims:
        ours = published.look_up(claim["ours"], found)
        controls = published.look_up(claim["controls"], found)
        names = list(dict.fromkeys(one.record for one in ours))
        judged = published.verdict(claim, found)
        by = "" if judged.rule != "by hand" else " (by hand)"
        rows.append({
            "id": claim["id"],
            "claim": f"{claim['claim']} ({claim['paper']}, {claim['where']})",
            "published": f"{claim['published']['text']} ({claim['published']['known']})",
            "ours": "; ".join(one.text for one in ours) or "-",
            "control": "; ".join(one.text for one in controls) or "-",
            "verdict": judged.word + by,
            "reason": judged.reason,
            "scale": "; ".join(dict.fromkeys(markdown.scale(found[name]) for name in names)) or "-",
            "interval": interval(claim, ours),
            "command": " ".join(f"`{command}`" for command in published.claim_commands(claim, found)) or "-",
            "record": ", ".join(names) or "-",
        })  # fmt: skip
    return rows


def interval(claim: Mapping[str, object], ours: Sequence[published.Found]) -> str:
    """What stands behind the numbers of a claim: kind of interval."""
    kinds = []
    for one in ours:
        cell = one.cell if isinstance(one.cell, Mapping) else {}
        kinds.append("in brackets" if "low" in cell else "+- one standard deviation" if "spread" in cell else "none")
    return ", ".join(dict.fromkeys(kinds)) or "-"


def terminal(found: Mapping[str, Record], claims: Claims) -> str:
    """The claims as a table for the terminal: id, verdict, published and our numbers."""
    rows = claim_rows(claims, found)
    widths = [max(len(row[name]) for row in rows) for name in ("id", "verdict")]
    lines = [
        f"{row['id']:{widths[0]}}  {row['verdict']:{widths[1]}}  published: {row['published']}; ours: {row['ours']}"
        for row in rows
    ]
    return "\n".join(lines)


def claims_page(claims: Claims, found: Mapping[str, Record]) -> str:
    """Every published claim, ours beside it, and what may be said."""
    rows = claim_rows(claims, found)
    heads = ["id", "claim", "published", "ours", "scale", "interval", "control", "verdict", "command", "record"]
    counts = [(word, sum(row["verdict"].removesuffix(" (by hand)") == word for row in rows)) for word in verdicts.WORDS]
    parts = [
        "# Published claims",
        "One row a claim, of three papers and what followed them. A verdict is about our numbers at our scale, which "
        "is small; it is made from them by a rule, or 'by hand', with a reason. Intervals are of single comparisons.",
        "```sh\n"
        "python runs/claims.py                                                              # this page as text\n"
        "python runs/claims.py --check=landscape-paths --scale=quick --workdir=/tmp/claim   # run one again\n"
        "```",
        markdown.grid(["verdict", "claims", "meaning"], [[w, str(n), verdicts.WORDS[w]] for w, n in counts]),
        markdown.grid(
            ["how sure a published number is", "meaning"], [[name, text] for name, text in published.KNOWN.items()]
        ),
    ]
    for paper, title in claims.papers.items():
        own = [row for row, claim in zip(rows, claims.claims) if claim["paper"] == paper]
        cells = [[_page_cell(head, row) for head in heads] for row in own]
        parts += [f"## {title}", f"[arXiv {paper}](https://arxiv.org/abs/{paper})", markdown.grid(heads, cells)]
    return MADE + "\n\n".join(parts) + "\n"


def speed_page(found: Mapping[str, Record]) -> str:
    """All figures of the benchmarks with their bars."""
    text = (
        "`pip install -e '.[benchmarks]'`, then the command. A bar is what was aimed at; a range meets it with its "
        "worse end. `x` is times as long as what stands there, or, where it says so, times as fast."
    )
    parts = ["# Speed", text]
    for name, record in found.items():
        value, bar = record["columns"][1:3]
        rows = [
            [
                row["cells"]["figure"],
                markdown.cell(row["cells"]["value"], value),
                markdown.cell(row["cells"]["bar"], bar) or "-",
                met(row),
            ]
            for row in record["rows"]
        ]
        parts += [f"## {record['title']}", "```sh\n" + "\n".join(records.commands(record)) + "\n```"]
        parts += [
            markdown.grid(["figure", "value", "bar", ""], rows),
            record["notes"],
            markdown.provenance(name, record),
        ]
    return MADE + "\n\n".join(part for part in parts if part) + "\n"


def met(row: Mapping[str, object]) -> str:
    """Whether a figure meets its bar, by the worse end of a range; `better` of the row is 'less' or 'more'.

    >>> met({'cells': {'value': {'low': 0.4, 'high': 0.7}, 'bar': {'value': 0.6}}, 'better': 'less'})
    'missed by some'
    """
    value, bar = (row["cells"][name] for name in ("value", "bar"))
    if bar is None:
        return ""
    numbers = (
        [value["low"], value["high"]] if isinstance(value, Mapping) and "low" in value else [verdicts.value(value)]
    )
    sign = -1 if row["better"] == "less" else 1
    reached = [sign * number >= sign * verdicts.value(bar) for number in numbers]
    return "met" if all(reached) else "missed by some" if any(reached) else "missed"


def filled(text: str, found: Mapping[str, Record], path: str) -> str:
    """A page by hand with the tables of the records that it names.

    Raises:
        RecordError: a record that is not there.
    """

    def table(match: re.Match[str]) -> str:
        start, name, end = match.groups()
        if name not in found:
            raise RecordError(f"{path}: record {name!r} is not in results/")
        parts = filter(None, [markdown.table(found[name]), markdown.smallest(found[name])])
        return "\n".join([start, *(f"{part}\n" for part in parts), end])

    return _BLOCK.sub(table, text)


def load(root: str | os.PathLike = ".") -> tuple[dict[str, Record], Claims, dict[str, str]]:
    """What `make` takes, from a clone of the repository, or elsewhere from what the package has with it."""
    root = pathlib.Path(root)
    if not (root / "results").is_dir():
        root = pathlib.Path(__file__).parents[1]
    paths = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    written = {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in paths if path.exists()}
    return records.load_all(root / "results"), published.load(root / "results" / "claims.json"), written


def different(root: str | os.PathLike = ".") -> dict[str, str]:
    """The pages that are not what their records make, by path; also pages of results whose records are gone ('')."""
    root = pathlib.Path(root)
    pages = make(*load(root))
    left = {path.relative_to(root).as_posix() for path in (root / "docs" / "results").glob("*.md")} - set(pages)
    changed = {path: text for path, text in pages.items() if _read(root / path) != text}
    return changed | dict.fromkeys(sorted(left), "")


def write(root: str | os.PathLike = ".") -> list[str]:
    """Write the pages that differ; returns their paths."""
    root, changed = pathlib.Path(root), different(root)
    for path, text in changed.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if text:
            write_atomically(root / path, text)
        else:
            (root / path).unlink()
    return list(changed)


def _title(experiment: str) -> str:
    return EXPERIMENTS.get(experiment, experiment)


def _page_cell(head: str, row: Mapping[str, str]) -> str:
    if head == "record":
        pages = {name.split("/")[0]: name for name in row["record"].split(", ") if "/" in name}
        return ", ".join(f"[{name}](results/{page}.md)" for page, name in pages.items()) or "-"
    if head == "verdict":
        return f"**{row['verdict']}**" + (f": {row['reason']}" if row["reason"] else "")
    return row[head]


def _read(path: pathlib.Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def _main(words: list[str]) -> int:
    if set(words) - {"--check"}:
        sys.stderr.write(f"error: {' '.join(words)}: the only flag is --check\n")
        return 2
    try:
        changed = list(different()) if words else write()
    except (RecordError, FileNotFoundError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    for path in changed:
        sys.stdout.write(f"{'differs from its records' if words else 'written'}: {path}\n")
    return int(bool(words and changed))


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
