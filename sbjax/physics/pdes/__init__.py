"""Differential equations by name, in three groups of five and three spare ones.

stationary    poisson, poisson_robin, poisson_multiscale, euler_beam, helmholtz
linear        heat, heat_source, heat_multimode, wave, advection
nonlinear     burgers, allen_cahn, klein_gordon, kovasznay, kdv
spare         poisson_nd, fisher, sine_gordon
"""

import inspect
from collections.abc import Callable

from sbjax.common.names import near
from sbjax.physics.equation import Equation
from sbjax.physics.pdes.advection import make_advection
from sbjax.physics.pdes.allen_cahn import make_allen_cahn
from sbjax.physics.pdes.burgers import make_burgers
from sbjax.physics.pdes.euler_beam import make_euler_beam
from sbjax.physics.pdes.fisher import make_fisher
from sbjax.physics.pdes.heat import make_heat, make_heat_multimode, make_heat_source
from sbjax.physics.pdes.helmholtz import make_helmholtz
from sbjax.physics.pdes.kdv import make_kdv
from sbjax.physics.pdes.klein_gordon import make_klein_gordon
from sbjax.physics.pdes.kovasznay import make_kovasznay
from sbjax.physics.pdes.poisson import make_poisson, make_poisson_multiscale, make_poisson_nd, make_poisson_robin
from sbjax.physics.pdes.sine_gordon import make_sine_gordon
from sbjax.physics.pdes.wave import make_wave

EQUATIONS: dict[str, Callable[..., Equation]] = {
    "poisson": make_poisson,
    "poisson_robin": make_poisson_robin,
    "poisson_multiscale": make_poisson_multiscale,
    "euler_beam": make_euler_beam,
    "helmholtz": make_helmholtz,
    "heat": make_heat,
    "heat_source": make_heat_source,
    "heat_multimode": make_heat_multimode,
    "wave": make_wave,
    "advection": make_advection,
    "burgers": make_burgers,
    "allen_cahn": make_allen_cahn,
    "klein_gordon": make_klein_gordon,
    "kovasznay": make_kovasznay,
    "kdv": make_kdv,
    "poisson_nd": make_poisson_nd,
    "fisher": make_fisher,
    "sine_gordon": make_sine_gordon,
}


def make_equation(name: str, **numbers: float) -> Equation:
    """An equation by name.

    Args:
        name: a key of `EQUATIONS`.
        numbers: coefficients that differ from the defaults; keyword arguments of the equation's builder.

    Raises:
        ValueError: an unknown equation or coefficient (with similar names), or a coefficient out of range.

    >>> make_equation('advection', beta=30.0).numbers
    {'beta': 30.0}
    >>> make_equation('burger')
    Traceback (most recent call last):
    ValueError: equation='burger' is unknown, did you mean 'burgers'?; known: poisson, poisson_robin, ...
    """
    if name not in EQUATIONS:
        raise ValueError(f"equation={name!r} is unknown{near(name, EQUATIONS)}; known: {', '.join(EQUATIONS)}")
    known = inspect.signature(EQUATIONS[name]).parameters
    for number in numbers:
        if number not in known:
            choice = f"{near(number, known)}; known: {', '.join(known)}" if known else "; it has none"
            raise ValueError(f"{name}.{number} is no coefficient of this equation{choice}")
    return EQUATIONS[name](**numbers)
