"""The claims in `results/claims.json`, and what happens when numbers change."""

import copy
import json
import pathlib

import pytest

from sbjax.claims import pages, published, verdicts
from sbjax.claims.records import RecordError
from sbjax.runner import rerun
from tests import commands

ROOT = pathlib.Path(__file__).parents[2]
RECORDS, CLAIMS, _ = pages.load(ROOT)


def test_the_claims_of_three_papers_are_there_with_a_verdict_each():
    assert len(CLAIMS.claims) >= 25
    assert {"2409.06402", "2405.20231", "2105.12221"} <= {claim["paper"] for claim in CLAIMS.claims}
    found = [published.verdict(claim, RECORDS) for claim in CLAIMS.claims]
    assert {one.word for one in found} <= set(verdicts.WORDS)
    # Most of those that were run are judged by a rule.
    run = [one for one in found if one.word != verdicts.NOT_RUN]
    assert sum(one.rule != "by hand" for one in run) > len(run) / 2
    for claim, one in zip(CLAIMS.claims, found):
        assert (one.word == verdicts.NOT_RUN) == (not claim["ours"]), claim["id"]
        assert one.reason or one.rule not in ("by hand", "not run"), claim["id"]
    assert published.lost(ROOT / "results") == []


# ml_collections loads config files in an old way.
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_every_command_to_run_again_can_be_read(monkeypatch):
    """The arms that are read afterwards are arms of the plan."""
    with_check = [claim for claim in CLAIMS.claims if "check" in claim]
    assert len(with_check) >= 12
    for claim in with_check:
        rerun.check(claim)
        for scale in {"smoke", "quick"} & set(claim["check"]):
            plan = commands.plan_of(claim["check"][scale], monkeypatch)
            for reading in (*claim["check"]["ours"], *claim["check"]["controls"]):
                named = {reading.get("arm"), reading.get("against"), pathlib.Path(reading.get("file", "")).stem}
                missing = named - {None, "", *(arm.name for arm in plan.arms)}
                assert scale == "smoke" or not missing, (claim["id"], missing)


def test_a_changed_number_changes_the_verdict():
    claim = published.find(CLAIMS, "expansion-pdes-loss")
    found = copy.deepcopy(RECORDS)
    (row,) = [
        row
        for row in found["pdes/fifteen_shares"]["rows"]
        if row["cells"]["what"] == "ours, training loss, expanded against raw"
    ]
    assert published.verdict(claim, found).word == "no difference shown"
    row["cells"]["pairs"] = {"value": 75, "low": 60, "high": 90}
    assert published.verdict(claim, found).word == "holds"
    row["cells"]["pairs"] = {"value": 25, "low": 10, "high": 40}
    assert published.verdict(claim, found).word == "does not hold here"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ours": [{"record": "pdes/none", "row": {}, "column": "x"}]}, "record 'pdes/none' is unknown"),
        ({"ours": [{"record": "pdes/fifteen", "row": {"equation": "none"}, "column": "raw"}]}, "has 0 rows"),
        ({"ours": [{"record": "pdes/fifteen", "row": {}, "column": "raw"}]}, "has 15 rows"),
        ({"ours": [{"record": "pdes/fifteen", "row": {"equation": "heat"}, "column": "none"}]}, "no column 'none'"),
        ({"ours": [{"record": "pdes/fifteen", "row": {"equation": "heat"}, "column": "raw"}]}, "has no interval"),
    ],
)
def test_cells_that_are_not_there_are_told(change, said):
    with pytest.raises(RecordError, match=said):
        published.verdict(published.find(CLAIMS, "expansion-pdes-loss") | change, RECORDS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"clame": ""}, "clame is unknown, did you mean 'claim'?"),
        ({"paper": "1"}, "paper='1' is not among"),
        ({"published": {"text": "", "known": "surely"}}, "published.known must be one of"),
        ({"ours": []}, "needs 1 numbers of ours, there are 0"),
        ({"ours": [{"record": "a/b"}]}, "must have column, record, row"),
        ({"id": "expansion-fills"}, "two claims with one id"),
    ],
)
def test_a_wrong_claim_is_told_with_its_id(change, said, tmp_path):
    content = json.loads((ROOT / "results" / "claims.json").read_text())
    content["claims"][0] = content["claims"][0] | change
    path = tmp_path / "claims.json"
    path.write_text(json.dumps(content))
    with pytest.raises(RecordError, match=said):
        published.load(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is no JSON"),
        ("[]", r"it=\[\] must be an object"),
        ("{}", "papers is missing"),
        ('{"papers": {}, "claims": [3]}', r"claims\[0\]=3 must be a dict"),
        ('{"papers": {"a": 1}, "claims": []}', "papers.a=1 must be a str"),
    ],
)
def test_a_file_of_something_else_is_told(content, said, tmp_path):
    (tmp_path / "claims.json").write_text(content)
    with pytest.raises(RecordError, match=rf"claims\.json: {said}"):
        published.load(tmp_path / "claims.json")


def test_an_unknown_claim_gets_near_names():
    with pytest.raises(RecordError, match="did you mean 'expansion-ising'"):
        published.find(CLAIMS, "expansion-isng")
