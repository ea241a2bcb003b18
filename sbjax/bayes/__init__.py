"""Posteriors of networks, and predictions under them.

Variational: `Variational` makes the weights of any network Gaussian. Others come from libraries: Laplace approximations
(`laplace`), samplers (`sampling`); the replicas of an arm are a deep ensemble (`Draws`). `predict` is one interface for
all of them.
"""

from sbjax.bayes.predictive import Draws, Posterior, Predictive, VariationalPosterior, averaged, predict
from sbjax.bayes.spec import VariationalSpec
from sbjax.bayes.variational import Started, Variational

__all__ = [
    "Draws",
    "Posterior",
    "Predictive",
    "Started",
    "Variational",
    "VariationalPosterior",
    "VariationalSpec",
    "averaged",
    "predict",
]
