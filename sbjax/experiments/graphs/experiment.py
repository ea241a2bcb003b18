"""Classification of the nodes of a graph: are graph networks without symmetries linearly connected?"""

import dataclasses
from typing import Any, ClassVar

from sbjax.asymmetry.options import build_asymmetric
from sbjax.common.names import is_import_path
from sbjax.common.options import one_of, option
from sbjax.data import graphs as graphs_lib
from sbjax.expansion.kinds import Expansion
from sbjax.experiments.connectivity.experiment import ConnectivityExperiment
from sbjax.frame.errors import ConfigError, told_as
from sbjax.frame.plan import ArmPlan, Plan
from sbjax.models import make_graph_model
from sbjax.tasks.graphs import make_graph_task
from sbjax.tasks.task import Task

_STAND_IN = {"dataset": one_of("csbm")}


@dataclasses.dataclass(frozen=True)
class Fields:
    """Fields of `task`."""

    dataset: str = option("csbm", "'csbm' (synthetic), 'ogbn_arxiv' from its files, or 'module:function' of yours")
    data_dir: str = option("", "of ogbn_arxiv: the folder with 'raw' and 'split'; '' = data/arxiv", free=True)
    nodes: int = option(3000, "of the synthetic graph", least=20, most=10**6, only=_STAND_IN)
    classes: int = option(10, "of the synthetic graph", least=2, most=1000, only=_STAND_IN)
    features: int = option(128, "of its nodes", least=1, most=10**4, only=_STAND_IN)
    degree: float = option(10.0, "mean number of neighbours", above=0, most=1000, only=_STAND_IN)
    homophily: float = option(0.5, "share of edges within a class", least=0, most=1, only=_STAND_IN)
    signal: float = option(1.5, "length of class means, in deviations of the noise", least=0, most=100, only=_STAND_IN)
    data_seed: int = option(0, "of the synthetic graph, which all replicas share", least=0, only=_STAND_IN)


class Graphs(ConnectivityExperiment):
    """Networks that classify nodes; a step sees the whole graph, so that an epoch is a step."""

    name: ClassVar[str] = "graphs"
    fields: ClassVar[type] = Fields
    model: ClassVar[dict[str, Any]] = {"name": "graph"}
    smoke: ClassVar[dict[str, Any]] = {"task.nodes": 60, "task.classes": 3, "task.features": 8, "task.degree": 4.0}
    data_fields: ClassVar[tuple[str, ...]] = tuple(field.name for field in dataclasses.fields(Fields))

    def shrink(self, config):
        """A small graph and narrow layers."""
        if config.task.get("dataset", "csbm") == "csbm":
            super().shrink(config)
        config.model.widths = (16, 16)
        if config.interpolation.between:
            config.interpolation.points = 3

    def load_data(self, task: Fields) -> graphs_lib.GraphData:
        """The graph of one source."""
        names = ("nodes", "classes", "features", "degree", "homophily", "signal")
        stand_in = {name: getattr(task, name) for name in names} | {"seed": task.data_seed}
        try:
            return graphs_lib.load(task.dataset, data_dir=task.data_dir or None, **stand_in)
        except (ValueError, OSError, ImportError, MemoryError) as error:
            raise ConfigError(f"task.dataset={task.dataset!r}: {error}") from error

    def make_task(self, plan: Plan, arm: ArmPlan, data: graphs_lib.GraphData, expansion: Expansion | None) -> Task:
        """Classification of these nodes by this arm's network."""
        if expansion is not None:
            raise ConfigError("expansion.kind: features of nodes are not expanded here; leave the section out")
        model = dict(arm.model)
        asymmetry, name = model.pop("asymmetry", None), model.pop("name", None)
        aggregated = not is_import_path(name)
        with told_as("model"):
            module = make_graph_model(name, classes=data.classes, aggregated=aggregated, **model)
            module = build_asymmetric(module, asymmetry)
        return make_graph_task(data, module, aggregated=aggregated, probe_size=plan.monitor.probe_size)


EXPERIMENT = Graphs()
