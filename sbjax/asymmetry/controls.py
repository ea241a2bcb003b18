"""Controls for experiments with asymmetric networks."""

import dataclasses
from typing import Any

from jaxtyping import PyTree

from sbjax.asymmetry.weights import standard_from


@dataclasses.dataclass(frozen=True)
class StartedFrom:
    """A standard network initialised with the effective weights of an asymmetric one.

    This control separates the effect of the initialisation from that of the constants. `init` and `apply` have the
    interface of a Linen module.

    Attributes:
        asymmetric: an asymmetric network, see `make_asymmetric`.
        module: the standard network; at initialisation it computes the same function.
    """

    asymmetric: Any
    module: Any

    def init(self, rngs: PyTree, *args: Any, **kwargs: Any) -> dict[str, PyTree]:
        """Variables of `module`: effective weights, no constants."""
        return standard_from(self.asymmetric.init(rngs, *args, **kwargs))

    def apply(self, variables: PyTree, *args: Any, **kwargs: Any) -> Any:
        """As `module.apply`."""
        return self.module.apply(variables, *args, **kwargs)
