"""Graphs whose nodes have labels: ogbn-arxiv from its files, a synthetic stand-in, and graphs of your own."""

import os
import pathlib
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, Int64

from sbjax.asymmetry import draws
from sbjax.common.names import import_path, is_import_path, near

SETS = ("csbm", "ogbn_arxiv")
SPLITS = ("train", "valid", "test")
SHARES = (0.54, 0.17)
"""Of training and validation nodes of the stand-in, about those of ogbn-arxiv."""
_SOURCE = "http://snap.stanford.edu/ogb/data/nodeproppred/arxiv.zip"


class GraphData(NamedTuple):
    """A graph with labelled nodes.

    Attributes:
        name: the name it was asked for by; of a synthetic graph it says so.
        classes: number of labels.
        features: [node, d].
        edges: [edge, 2], pairs (from, to), as given.
        labels: [node], from 0.
        train, validation, test: numbers of nodes, disjoint.
    """

    name: str
    classes: int
    features: Float32[np.ndarray, "node d"]
    edges: Int64[np.ndarray, "edge 2"]
    labels: Int32[np.ndarray, " node"]
    train: Int64[np.ndarray, " train"]
    validation: Int64[np.ndarray, " validation"]
    test: Int64[np.ndarray, " test"]


def load(name: str, *, data_dir: str | os.PathLike | None = None, **stand_in: Any) -> GraphData:
    """The graph of a name.

    Args:
        name: 'csbm', see `contextual_sbm`; 'ogbn_arxiv', see `load_ogbn`; or 'module:function' of yours, called without
            arguments, that returns a `GraphData`.
        data_dir: of 'ogbn_arxiv'.
        stand_in: options of `contextual_sbm`.

    Raises:
        ValueError: an unknown name, data that cannot be used, a function that fails.
        FileNotFoundError: the files are not there; the message says how to get them.
    """
    if name == "csbm":
        return contextual_sbm(**stand_in)
    if name == "ogbn_arxiv":
        return load_ogbn(data_dir or "data/arxiv", name=name)
    if not is_import_path(name):
        raise ValueError(f"{name!r} is unknown{near(name, SETS)}; known: {', '.join(SETS)}, or 'module:function'")
    try:
        data = import_path(name)()
    except Exception as error:  # the user's own code may raise anything
        raise ValueError(f"the function raised {type(error).__name__}: {error}") from error
    if not isinstance(data, GraphData):
        raise ValueError(f"the function returned a {type(data).__name__}, not a sbjax.data.graphs.GraphData")
    return check(data)


def check(data: GraphData) -> GraphData:
    """The same graph, if it can be used.

    Raises:
        ValueError: naming the field, what it has and what it must have.
    """
    nodes = len(data.features)
    if data.features.ndim != 2 or not np.isfinite(data.features).all():
        raise ValueError(f"features of shape {data.features.shape} must be finite numbers [node, d]")
    if data.edges.ndim != 2 or data.edges.shape[1] != 2:
        raise ValueError(f"edges has shape {data.edges.shape}; give pairs of nodes [edge, 2]")
    if data.edges.size and not 0 <= data.edges.min() <= data.edges.max() < nodes:
        raise ValueError(f"edges names nodes {data.edges.min()} .. {data.edges.max()}; there are 0 .. {nodes - 1}")
    if data.labels.shape != (nodes,) or not 0 <= data.labels.min() <= data.labels.max() < data.classes:
        raise ValueError(
            f"labels of shape {data.labels.shape}, {data.labels.min()} .. {data.labels.max()}: give one of 0 .. "
            f"{data.classes - 1} for each of the {nodes} nodes"
        )
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    for part, chosen in parts.items():
        if not len(chosen) or not 0 <= min(chosen) <= max(chosen) < nodes:
            raise ValueError(f"{part} must name at least one node, out of 0 .. {nodes - 1}")
    chosen = np.concatenate(list(parts.values()))
    if len(np.unique(chosen)) < len(chosen):
        raise ValueError("train, validation and test have nodes in common; a node is in one of them at most")
    return data


def load_ogbn(folder: str | os.PathLike, *, name: str = "ogbn") -> GraphData:
    """A node-property set of the Open Graph Benchmark from its unpacked archive, without its package or torch.

    Read are `raw/edge.csv.gz`, `raw/node-feat.csv.gz`, `raw/node-label.csv.gz` and `split/<kind>/{train,valid,
    test}.csv.gz`; of ogbn-arxiv 169,343 nodes with 128 features, 40 classes, 1,166,243 directed edges, split by year.

    Args:
        folder: the one that holds `raw` and `split`.
        name: of the result.

    Raises:
        FileNotFoundError: a file is not there; the message says how to get ogbn-arxiv.
        ValueError: a file that is no table of numbers, or tables that do not belong together.
    """
    folder = pathlib.Path(folder)
    splits = sorted(path for path in (folder / "split").glob("*") if (path / "train.csv.gz").exists())
    wanted = [folder / "raw" / f"{part}.csv.gz" for part in ("edge", "node-feat", "node-label")]
    if missing := [str(path) for path in wanted if not path.exists()] or ([] if splits else [str(folder / "split")]):
        raise FileNotFoundError(
            f"{missing[0]} is not there: unpack {_SOURCE} and give task.data_dir the folder in it that holds 'raw' and "
            "'split', or use task.dataset='csbm', a synthetic stand-in"
        )

    def table(path, kind):
        try:
            return np.loadtxt(path, delimiter=",", dtype=kind, ndmin=2)
        except (ValueError, EOFError, OSError) as error:
            raise ValueError(f"{path} is no table of numbers ({error}); unpack the archive again") from error

    edges, features, labels = (table(path, kind) for path, kind in zip(wanted, (np.int64, np.float32, np.int64)))
    train, validation, test = (table(splits[0] / f"{part}.csv.gz", np.int64).ravel() for part in SPLITS)
    classes = int(labels.max()) + 1
    return check(GraphData(name, classes, features, edges, labels[:, 0].astype(np.int32), train, validation, test))


def contextual_sbm(
    *,
    nodes: int = 3000,
    classes: int = 10,
    features: int = 128,
    degree: float = 10.0,
    homophily: float = 0.5,
    signal: float = 1.5,
    seed: int = 0,
) -> GraphData:
    """A contextual stochastic block model: a synthetic graph whose edges and features both tell of the labels.

    Labels are uniform. About nodes * degree / 2 undirected edges join a random node to one of its own class (with the
    probability `homophily`) or of another one; features are signal * m_c + standard normal noise, with a random unit
    vector m_c for each class c. It stands in for a citation graph, none of which ships inside a package, and has none
    of its hubs, years or skewed classes.

    Args:
        nodes: number of nodes.
        classes: number of classes.
        features: dimension.
        degree: mean number of neighbours; a few edges are drawn twice and count once.
        homophily: share of edges within a class; 1 / classes carries no signal.
        signal: length of the class means, in standard deviations of the noise.
        seed: of everything.

    Raises:
        ValueError: a number out of its range.

    >>> data = contextual_sbm(nodes=100, classes=4, features=8)
    >>> data.features.shape, int(data.labels.max()), len(data.train), len(data.validation), len(data.test)
    ((100, 8), 3, 54, 17, 29)

    Source: Deshpande et al., "Contextual Stochastic Block Models", arXiv 1807.09596; several classes as here are ours.
    """
    if not 2 <= classes <= nodes // 10:
        raise ValueError(f"classes={classes} must be >= 2 and at most a tenth of nodes={nodes}")
    if features < 1 or not 0 < degree < nodes / 2 or not 0 <= homophily <= 1 or not signal >= 0:
        raise ValueError(
            f"features={features}, degree={degree}, homophily={homophily}, signal={signal}: need features >= 1, 0 < "
            f"degree < nodes / 2 = {nodes / 2:g}, homophily in [0, 1] and signal >= 0"
        )
    random = draws.generator(seed, "csbm")
    labels = random.permutation(np.arange(nodes) % classes)
    means = random.standard_normal((classes, features))
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    x = signal * means[labels] + random.standard_normal((nodes, features))
    first = random.integers(nodes, size=round(nodes * degree / 2))
    own = random.random(len(first)) < homophily
    others = (labels[first] + random.integers(1, classes, size=len(first))) % classes
    wanted = np.where(own, labels[first], others)
    members = [np.flatnonzero(labels == c) for c in range(classes)]
    sizes = np.array([len(each) for each in members])
    places = (random.random(len(first)) * sizes[wanted]).astype(int)
    starts = np.cumsum(sizes) - sizes
    second = np.concatenate(members)[starts[wanted] + places]
    edges = np.stack([first, second], 1)[first != second].astype(np.int64)
    order = random.permutation(nodes)
    ends = np.round(np.cumsum(SHARES) * nodes).astype(int)
    train, validation, test = (np.sort(part) for part in np.split(order, ends))
    name = f"synthetic CSBM, {nodes} nodes"
    return check(
        GraphData(name, classes, x.astype(np.float32), edges, labels.astype(np.int32), train, validation, test)
    )
