"""Controls for the experiments on asymmetric networks."""

import dataclasses
from typing import Any

from jaxtyping import PyTree

from sbjax.asymmetry.weights import standard_from


@dataclasses.dataclass(frozen=True)
class StartedFrom:
    """A standard network that starts from an asymmetric one's effective weights: is it the start, or the constants?

    `init` and `apply` are called as those of a Linen module.

    Attributes:
        asymmetric: as `make_asymmetric` makes it.
        module: the standard network; it computes what the asymmetric one does at the start.
    """

    asymmetric: Any
    module: Any

    def init(self, rngs: PyTree, *args: Any, **kwargs: Any) -> dict[str, PyTree]:
        """Variables of `module`, without constants."""
        return standard_from(self.asymmetric.init(rngs, *args, **kwargs))

    def apply(self, variables: PyTree, *args: Any, **kwargs: Any) -> Any:
        """As `module.apply`."""
        return self.module.apply(variables, *args, **kwargs)
