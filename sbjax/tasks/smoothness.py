"""Whether a network has the derivatives that an equation asks for."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from sbjax.models import layers
from sbjax.models.field import Field
from sbjax.physics.derivatives import parse_partial
from sbjax.physics.equation import Equation, spread
from sbjax.tasks.field_partials import make_derive


def check_activation(equation: Equation, field: nn.Module) -> None:
    """Check that the network has the derivatives that an equation and its conditions contain.

    Of a network of one's own, those of random weights are looked at.

    Raises:
        ValueError: a piecewise linear activation with an equation of second order, whose derivatives say nothing about
            the network; an activation with too few derivatives for a higher one.

    >>> from sbjax.physics.pdes import make_equation
    >>> field = Field(unknowns=1, widths=(8,), lower=(0.0,), upper=(1.0,), activation='relu')
    >>> check_activation(make_equation('poisson'), field)
    Traceback (most recent call last):
    ValueError: activation='relu' has no derivatives of order 2, as in u_xx of poisson: use tanh, sin, silu or softplus
    """
    names = dict.fromkeys([*equation.partials, *(name for c in equation.conditions for name in c.partials)])
    orders = {name: sum(parse_partial(name, equation.coordinates, equation.unknowns).orders) for name in names}
    highest = max(orders, key=orders.__getitem__)
    smooth = "use tanh, sin, silu or softplus"
    if isinstance(field, Field):
        if orders[highest] > layers.ORDERS.get(field.activation, orders[highest]):
            raise ValueError(
                f"activation={field.activation!r} has no derivatives of order {orders[highest]}, as in {highest} of "
                f"{equation.name}: {smooth}"
            )
        return
    if orders[highest] < 2:
        return

    @jax.jit
    def largest(key, points):
        variables = field.init(key, points[0])
        derive = make_derive(equation, field, mode="forward", hard=False)
        found = derive(variables, points, [name for name, order in orders.items() if order >= 2])
        return {name: jnp.max(jnp.abs(values)) for name, values in found.items()}

    found = largest(jax.random.key(0), jnp.asarray(spread(equation, 16), field.dtype))
    if not any(value != 0 for value in found.values()):
        raise ValueError(
            f"{', '.join(found)} of {equation.name} are zero for any weights of the network, which is piecewise "
            f"linear: {smooth} as its activation"
        )
