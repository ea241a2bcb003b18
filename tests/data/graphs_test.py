"""Graphs from files and from the stand-in: what is read, what the numbers mean, what is refused."""

import gzip

import numpy as np
import pytest

from sbjax.data import graphs

TINY = graphs.contextual_sbm(nodes=60, classes=3, features=4, degree=6.0, seed=1)


def own_graph():
    return TINY


def write_ogbn(folder, data):
    """The files of the Open Graph Benchmark's archive."""
    tables = {
        "raw/edge": (data.edges, "%d"),
        "raw/node-feat": (data.features, "%.9g"),
        "raw/node-label": (data.labels[:, None], "%d"),
        "split/time/train": (data.train[:, None], "%d"),
        "split/time/valid": (data.validation[:, None], "%d"),
        "split/time/test": (data.test[:, None], "%d"),
    }
    for name, (table, form) in tables.items():
        path = folder / f"{name}.csv.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(path, "wt") as file:
            np.savetxt(file, table, fmt=form, delimiter=",")


def test_the_files_of_the_benchmark_are_read_without_its_package(tmp_path):
    write_ogbn(tmp_path, TINY)
    found = graphs.load("ogbn_arxiv", data_dir=tmp_path)
    assert found.name == "ogbn_arxiv"
    assert found.classes == 3
    for name in ("edges", "labels", "train", "validation", "test", "features"):
        np.testing.assert_array_equal(getattr(found, name), getattr(TINY, name))


def test_absent_files_are_told_in_one_sentence(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"edge\.csv\.gz is not there: unpack http.*arxiv\.zip and give task\.dat"
    ):
        graphs.load("ogbn_arxiv", data_dir=tmp_path)
    write_ogbn(tmp_path, TINY)
    (tmp_path / "split" / "time" / "train.csv.gz").unlink()
    with pytest.raises(FileNotFoundError, match="split is not there"):
        graphs.load("ogbn_arxiv", data_dir=tmp_path)


def test_damaged_files_are_told(tmp_path):
    write_ogbn(tmp_path, TINY)
    (tmp_path / "raw" / "edge.csv.gz").write_bytes(b"no gzip")
    with pytest.raises(ValueError, match=r"edge\.csv\.gz is no table of numbers"):
        graphs.load("ogbn_arxiv", data_dir=tmp_path)


def test_the_stand_in_is_what_its_parameters_say():
    """Degree, share of edges within a class and length of the means, within four standard errors."""
    nodes, degree, homophily, signal = 4000, 8.0, 0.4, 2.0
    data = graphs.contextual_sbm(nodes=nodes, classes=5, features=16, degree=degree, homophily=homophily, signal=signal)
    edges = len(data.edges)
    assert edges == pytest.approx(nodes * degree / 2, rel=0.01)
    within = np.mean(data.labels[data.edges[:, 0]] == data.labels[data.edges[:, 1]])
    assert abs(within - homophily) < 4 * np.sqrt(homophily * (1 - homophily) / edges)
    means = np.stack([data.features[data.labels == c].mean(0) for c in range(5)])
    noise = 16 / (nodes / 5)
    np.testing.assert_allclose((means**2).sum(1), signal**2 + noise, atol=4 * 2 * signal / np.sqrt(nodes / 5))
    assert np.bincount(data.labels).tolist() == [800] * 5
    assert "synthetic" in data.name


def test_the_stand_in_is_the_same_in_every_process():
    again = graphs.load("csbm", nodes=60, classes=3, features=4, degree=6.0, seed=1)
    np.testing.assert_array_equal(again.features, TINY.features)
    np.testing.assert_array_equal(again.edges, TINY.edges)
    assert TINY.edges[:3].tolist() == [[52, 45], [23, 31], [18, 29]]
    other = graphs.contextual_sbm(nodes=60, classes=3, features=4, degree=6.0, seed=2)
    assert not np.array_equal(other.labels, TINY.labels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"edges": np.array([[0, 60]])}, r"^edges names nodes 0 .. 60; there are 0 .. 59"),
        ({"labels": np.zeros(3, np.int32)}, r"^labels of shape \(3,\)"),
        ({"classes": 2}, r"^labels of shape \(60,\), 0 .. 2: give one of 0 .. 1"),
        ({"train": np.arange(0)}, "^train must name at least one node"),
        ({"train": TINY.test}, "have nodes in common"),
        ({"features": np.full((60, 2), np.nan, np.float32)}, "must be finite numbers"),
        ({"edges": np.zeros((3, 3), np.int64)}, r"^edges has shape \(3, 3\)"),
    ],
)
def test_graphs_that_cannot_be_used(change, message):
    with pytest.raises(ValueError, match=message):
        graphs.check(TINY._replace(**change))


def test_names(monkeypatch):
    monkeypatch.syspath_prepend("tests/data")
    assert graphs.load("graphs_test:own_graph").classes == 3
    with pytest.raises(ValueError, match=r"^'csmb' is unknown, did you mean 'csbm'"):
        graphs.load("csmb")
    with pytest.raises(ValueError, match=r"returned a list, not a sbjax\.data\.graphs\.GraphData"):
        graphs.load("builtins:list")
    with pytest.raises(ValueError, match=r"^the function raised"):
        graphs.load("graphs_test:write_ogbn")
    for wrong in ({"classes": 1}, {"homophily": 1.5}, {"degree": 0.0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}="):
            graphs.contextual_sbm(**wrong)
