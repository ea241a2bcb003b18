"""The optimisers and schedules that there are, by name; one line each."""

from sbjax.optimizers.adam import Adam, AdamW
from sbjax.optimizers.base import Optimizer, Schedule
from sbjax.optimizers.gauss_newton import GaussNewton
from sbjax.optimizers.lbfgs import Lbfgs
from sbjax.optimizers.look_ahead import LookAheadSgd
from sbjax.optimizers.quasi_newton import SelfScaledBfgs, SelfScaledBroyden
from sbjax.optimizers.schedules import Constant, Cosine, Step, Triangle
from sbjax.optimizers.sgd import Sgd
from sbjax.optimizers.soap import Soap

OPTIMIZERS: dict[str, type[Optimizer]] = {
    part.name: part
    for part in (Sgd, LookAheadSgd, Adam, AdamW, Soap, Lbfgs, SelfScaledBroyden, SelfScaledBfgs, GaussNewton)
}
SCHEDULES: dict[str, type[Schedule]] = {part.name: part for part in (Constant, Cosine, Triangle, Step)}
