import json

import pytest

from sbjax.common.files import to_json
from sbjax.report import tables as lib
from sbjax.report import terminal
from sbjax.report.results import load_results
from sbjax.report.statistics import summarise


@pytest.fixture
def summary(write_run):
    return summarise(load_results(write_run()))


def test_table_shows_every_arm_within_the_terminal(summary):
    lines = lib.format_table(summary).splitlines()
    assert all(len(line) <= lib.WIDTH for line in lines)
    assert [line.split()[0] for line in lines[1:4]] == ["raw", "expanded", "nearest"]
    comparison = summary["comparisons"]["equal_steps"][0]["comparison"]
    assert f"{100 * comparison['difference']:+.2f} [{100 * comparison['low']:+.2f}" in lines[2]
    assert "8/8" in lines[2]
    assert "0.01" in lines[1]
    notes = " ".join(lines[4:])
    assert "percent points" in notes
    assert "distance: replica_distance/marginal" in notes


def test_columns_start_at_the_same_place(summary):
    header, *rows = lib.format_table(summary).splitlines()[:4]
    for title, cells in (("parameters", ["1,234", "1,300", "1,300"]), ("distance", ["0.01", "0.02", "0.03"])):
        assert [row[header.index(title) :].split()[0] for row in rows] == cells


def test_equal_flops_shows_the_other_comparison(summary):
    assert " -" in lib.format_table(summary, at="equal_flops").splitlines()[2]
    assert lib.format_table(summary) != lib.format_table(summary, at="equal_flops")


def test_the_file_and_the_dict_make_the_same_table(summary):
    assert lib.format_table(json.loads(to_json(summary))) == lib.format_table(summary)


def test_long_names_are_whole_and_what_is_too_wide_goes_on_below(summary):
    name = "expanded_by_three_with_the_mean_of_the_training_images"
    summary["arms"] = {name if arm == "expanded" else arm: entry for arm, entry in summary["arms"].items()}
    summary["comparisons"]["equal_steps"][0]["arm"] = name
    lines = lib.format_table(summary).splitlines()
    assert max(map(len, lines)) <= lib.WIDTH
    first, second = lines[:4], lines[4:8]
    assert (
        [line.split()[0] for line in first] == [line.split()[0] for line in second] == ["arm", "raw", name, "nearest"]
    )
    assert "8/8" in second[2]
    whole = " ".join(first[2].split() + second[2].split()[1:])
    assert "1,300" in whole
    assert "~" not in "".join(lines)


def test_no_cell_is_ever_cut():
    rows = [["arm", *"abcdefg"], ["x" * 30, *("1" * 40 for _ in "abcdefg")], ["y" * 200, *"1234567"]]
    lines = lib.columns(rows)
    assert [cell for line in lines for cell in line.split()].count("1" * 40) == 7
    assert "y" * 200 in lines[2]
    assert max(len(line) for line in lib.columns(rows[:2])) <= lib.WIDTH


@pytest.mark.parametrize("columns", [20, 40, 80])
def test_no_word_of_a_note_is_cut(monkeypatch, columns):
    """Names of arms and of distances, which were cut at the edge and at hyphens; wide letters need two columns."""
    monkeypatch.setenv("COLUMNS", str(columns))
    words = [
        "1.234e-12",
        "[9.9e-13,",
        "expanded_by_three_with_the_mean-of_all-images:",
        "対照の腕",
        "x" * 90,
        *["対照"] * 30,
    ]
    lines = lib.wrap(" ".join(words))
    assert " ".join(lines).split() == words
    assert all(terminal.cells(line) <= terminal.room() or " " not in line for line in lines)


def test_what_is_undefined_is_a_dash(summary):
    summary["comparisons"]["equal_steps"][0]["comparison"] = None
    summary["arms"]["expanded"] |= {"last_metrics": {}, "metrics": {}, "parameters": None}
    assert lib.format_table(summary).splitlines()[2].split() == ["expanded", *["-"] * 6]


def test_losses_are_not_in_percent():
    described = {"median": 0.123456, "q1": 0.1, "q3": 0.2, "n": 5}
    assert lib.spread("test/loss", described) == "0.1235 [0.1, 0.2]"
    assert lib.difference("test/loss", -0.01) == "-0.01"
    assert lib.interval("test/loss", {"low": None, "high": None}) == "-"
    assert lib.in_percent("accuracy")
    assert not lib.in_percent("test/accuracy_gap")


def test_names_of_many_arms_stay_apart():
    described = {"median": 1.234e-5, "q1": 1.1e-5, "q3": 1.3e-5, "n": 5}
    comparison = {"difference": 1.23e-5, "low": 1.11e-5, "high": 1.36e-5, "p_value": 0.0625, "improved": 0, "tied": 0}
    names = [f"size{size}_middle_{value}" for size in (3, 5, 7) for value in ("0", "0_5", "1", "10", "pi")]
    arms = {name: {"parameters": 2241, "last_metrics": {"test/mse": described}, "metrics": {}} for name in names}
    compared = [{"arm": name, "comparison": {**comparison, "n": 5}} for name in names[1:]]
    summary = {"primary": {"name": "test/mse"}, "reference": names[0], "confidence": 0.95, "arms": arms}
    lines = lib.format_table(summary | {"comparisons": {"equal_steps": compared}}).splitlines()
    below = lines[16:]
    assert [line.split()[0] for line in lines[1:16]] == names
    assert max(map(len, lines)) <= lib.WIDTH
    assert "[1.1e-05, 1.3e-05]" in lines[2]
    assert "0/5" in lines[2] or "0/5" in below[2]


@pytest.mark.parametrize("given", [20, 40, 80, 200])
def test_tables_fit_narrow_terminals(given, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(given))
    rows = [["arm", "median", "minus raw", "p"], ["expanded", "1.234e-05", "-1.2e-06 [-2.3e-06, -1e-07]", "0.0020"]]
    lines = lib.columns([*rows, ["raw", "1.5e-05", "-", "-"]])
    widest = max(len(row) for row in rows[1]) + 2 + len("expanded")
    assert max(map(len, lines)) <= max(min(given, lib.WIDTH), widest)
    words = " ".join(lines)
    assert all(cell in words for row in rows for cell in row)
    assert max(map(len, lib.wrap("word " * 60))) <= max(terminal.LEAST, min(given, lib.WIDTH))


def test_wide_letters_and_marks_keep_the_columns():
    """As a terminal counts them."""
    lines = lib.columns([["arm", "n"], ["対照実験", "1"], ["e\u0301te\u0301", "2"], ["raw", "3"]])
    starts = {terminal.cells(line[: line.rindex(line[-1])]) for line in lines}
    assert starts == {10}
