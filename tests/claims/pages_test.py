"""Generated pages are what their records make."""

import copy
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from sbjax.claims import pages, published

ROOT = pathlib.Path(__file__).parents[2]
RECORDS, CLAIMS, WRITTEN = pages.load(ROOT)
PAGES = pages.make(RECORDS, CLAIMS, WRITTEN)
NUMBER = re.compile(r"(?<![\w.])[+-]?\d[\d,]*\.?\d*(?:e[+-]?\d+)?")


def test_pages_and_records_agree():
    remedy = "make the pages again: python -m sbjax.claims.pages"
    assert sorted(pages.different(ROOT)) == [], remedy


@pytest.mark.parametrize("name", RECORDS)
def test_a_changed_record_changes_its_page(name):
    found = copy.deepcopy(RECORDS)
    row = found[name]["rows"][-1]["cells"]
    key, cell = next((key, cell) for key, cell in row.items() if isinstance(cell, dict | int | float))
    row[key] = 120000.0 if not isinstance(cell, dict) else {**cell, next(iter(cell)): 120000.0}
    if isinstance(cell, dict) and "values" in cell:
        row[key] = {**cell, "null": 120000.0}
    # A claim that names the changed row by that number would not be found.
    changed = pages.make(found, published.Claims(CLAIMS.papers, ()), WRITTEN)
    page = "docs/speed.md" if name.startswith("speed/") else f"docs/results/{name.split('/')[0]}.md"
    assert changed[page] != PAGES[page]
    assert "120,000" in changed[page] or "120000" in changed[page]
    others = [path for path in PAGES if path not in (page, "docs/claims.md", "README.md", "docs/quickstart.svg")]
    assert all(changed[path] == PAGES[path] for path in others)


def numbers_of(cell):
    """The numbers of a cell in the order in which they are read."""
    if isinstance(cell, dict):
        cell = {name: value for name, value in cell.items() if name != "unit"}
        listed = [*cell.pop("values", ())]
        return listed + [
            cell[name] for name in ("value", "count", "of", "spread", "low", "high", "null") if name in cell
        ]
    return [] if cell is None or isinstance(cell, str) else [cell]


@pytest.mark.parametrize("experiment", sorted({name.split("/")[0] for name in RECORDS} - {"speed"}))
def test_every_number_of_a_table_is_in_its_record(experiment):
    """Tables of the page, read again by eye of a regular expression, against the numbers of the records."""
    text = PAGES[f"docs/results/{experiment}.md"]
    tables = re.findall(r"^\| .*\n\| ---.*\n((?:\| .*\n?)+)", text, re.MULTILINE)
    own = [record for name, record in RECORDS.items() if name.split("/")[0] == experiment]
    assert len(tables) == len(own)
    for table, record in zip(tables, own):
        lines = table.strip().splitlines()
        assert len(lines) == len(record["rows"])
        columns = [column for column in record["columns"] if column.get("shown", True)]
        for line, row in zip(lines, record["rows"]):
            shown = [text.strip() for text in re.split(r"(?<!\\)\|", line.strip("| \n"))]
            shown += [""] * (len(columns) - len(shown))
            for text, column in zip(shown, columns):
                cell = row["cells"].get(column["key"])
                if isinstance(cell, str):
                    assert cell.replace("|", "\\|") in text
                    continue
                read = [float(number.replace(",", "")) for number in NUMBER.findall(text)]
                expected = [number for number in numbers_of(cell) if number is not None]
                assert len(read) == len(expected), (text, cell)
                tolerance = 0.51 * 10 ** -column["decimals"] if "decimals" in column else 0.0
                relative = 0.51 * 10 ** (1 - column["digits"]) if "digits" in column else 0.0
                assert read == [pytest.approx(x, abs=max(tolerance, 1e-300), rel=relative) for x in expected], text


def test_numbers_of_claims_come_from_records():
    """Of our numbers and controls: each stands in the page as its record shows it."""
    for claim, row in zip(CLAIMS.claims, pages.claim_rows(CLAIMS, RECORDS)):
        assert f"| {row['id']} |" in PAGES["docs/claims.md"]
        for name, shown in (("ours", row["ours"]), ("controls", row["control"])):
            for reference, part in zip(claim[name], shown.split("; ") if claim[name] else ()):
                (cells,) = [
                    own["cells"]
                    for own in RECORDS[reference["record"]]["rows"]
                    if reference["row"].items() <= own["cells"].items()
                ]
                said = part.removeprefix(reference.get("said", "")).removeprefix(": ")
                first = NUMBER.search(said)
                cell = numbers_of(cells[reference["column"]])
                assert not cell or float(first.group().replace(",", "")) == pytest.approx(cell[0], rel=0.06), said


def test_speed_says_which_bars_are_met():
    page = PAGES["docs/speed.md"]
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")]
    said = {tuple(row[:2]): row[-1] for row in rows if len(row) == 4}
    missed = [figure for (figure, _), verdict in said.items() if verdict.startswith("missed")]
    assert any(figure.startswith("| sigma-asymmetric mlp 3x512, training step") for figure in missed)
    met = [figure for (figure, _), verdict in said.items() if verdict.startswith("met")]
    assert any(figure.startswith("| time of a spin update on 2 devices, h = 0 (") for figure in met)


def test_pages_are_written_and_those_without_records_go(tmp_path):
    for name in ("README.md", "docs", "results"):
        copy_of = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy_of(ROOT / name, tmp_path / name)
    (tmp_path / "docs" / "results" / "gone.md").write_text("old")
    readme = tmp_path / "README.md"
    readme.write_text(readme.read_text().replace("| raw | 56,554 |", "| raw | 1 |"))
    command = [sys.executable, "-m", "sbjax.claims.pages"]
    options = {"cwd": tmp_path, "env": {"PYTHONPATH": str(ROOT), "PATH": ""}, "capture_output": True, "text": True}
    checked = subprocess.run([*command, "--check"], **options)
    assert checked.returncode == 1
    assert sorted(line.split(": ")[1] for line in checked.stdout.splitlines()) == ["README.md", "docs/results/gone.md"]
    assert subprocess.run(command, **options).returncode == 0
    assert readme.read_text() == (ROOT / "README.md").read_text()
    assert not (tmp_path / "docs" / "results" / "gone.md").exists()
    assert pages.different(tmp_path) == {}


def test_a_page_that_names_no_record_is_told():
    text = "<!-- record images/none -->\n\n<!-- end of record -->"
    with pytest.raises(pages.RecordError, match=r"docs/x\.md: record 'images/none' is not in results"):
        pages.make(RECORDS, CLAIMS, {"docs/x.md": text})
