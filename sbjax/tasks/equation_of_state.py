"""Fit quasi-parton masses to the QCD equation of state from the lattice."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from sbjax.common.names import check_choice
from sbjax.expansion.folding import fold as fold_expansion
from sbjax.physics import lattice, qcd
from sbjax.tasks.full_batch import full_batch_task
from sbjax.tasks.task import Aux, Average, Grid, Task

LOSSES = ("chi2", "l1")
TIED_ABOVE = 2.5 * 0.150  # GeV; the mass relations are part of the loss above this temperature
UNKNOWNS = ("P/T^4", "eps/T^4", "s/T^3", "Delta/T^4", "c_s^2", "m_ud", "m_s", "m_g")
_FINE = 5  # plotted grid points per training interval


def make_equation_of_state_task(
    parametrisation: str,
    network: nn.Module,
    *,
    lower: float = 0.155,
    upper: float = 0.4,
    points: int = 50,
    loss: str = "chi2",
    relative_error: float = 0.05,
    mass_weight: float = 1.0,
    nodes: int = 20,
    fold: bool = False,
) -> Task:
    """Fit entropy density and trace anomaly at `points` temperatures; every batch holds all of them.

        'chi2':  mean ((s - s_0)/sigma_s)^2 + mean ((Delta - Delta_0)/sigma_Delta)^2 + w L_mass
        'l1':    mean |s - s_0| + mean |Delta - Delta_0|/T + w L_mass, in GeV^3
        L_mass = mean over all temperatures of [T > 0.375 GeV] (|m_g/m_ud - 1.5| + |(m_s - m_ud)/(0.09 GeV) - 1|)

    where sigma is `relative_error` times the value and replaces the lattice errors. s and Delta are total derivatives
    of ln Z with respect to temperature, including the dependence of the masses on it.

    Metrics:
        'train/loss', and without w 'train/loss_entropy', 'train/loss_anomaly', 'train/loss_masses'.
        'test/mae_pressure', 'test/mae_energy', 'test/mae_entropy', 'test/mae_anomaly': mean absolute error of P/T^4,
            eps/T^4, s/T^3 and Delta/T^4 half-way between training temperatures, with 64 quadrature nodes.
        'test/worst_pressure': largest relative error of P at the same temperatures.
        'validation/mae_pressure': at a quarter of each interval.
        'lattice/worst_pressure': largest relative error of P at the HotQCD points in the range, if HotQCD is fitted.
            Not a test metric: the default training temperatures are those points.

    Args:
        parametrisation: a name of `lattice.NAMES`; the default temperatures are the lattice points of
            'hotqcd_points'.
        network: T [n] -> masses [n, 3] in GeV, see `sbjax.models.make_quasi_partons`.
        lower, upper: range of the evenly spaced training temperatures in GeV.
        points: number of training temperatures.
        loss: a name of `LOSSES`.
        relative_error: sigma divided by the value, in 'chi2'.
        mass_weight: w.
        nodes: quadrature nodes in training; 20 give a relative error below 2e-6 for masses above 0.04 GeV.
        fold: train on raw input, starting from weights into which `network.expansion` was folded.

    Raises:
        ValueError: an unknown parametrisation or loss; temperatures outside the data; a number out of range;
            `fold` without an expansion.

    Source: arXiv 2211.07994 and its authors' code ('chi2'); arXiv 2501.10012 without its susceptibilities ('l1').
    """
    lattice.check_name(parametrisation)
    check_choice(loss, LOSSES, what="loss")
    least, most = lattice.VALID[parametrisation]
    if not least <= lower < upper <= most:
        raise ValueError(
            f"lower={lower} and upper={upper} must be temperatures in GeV with {least} <= lower < upper <= "
            f"{most}, such as 0.155 and 0.4"
        )
    if points < 2:
        raise ValueError(f"points={points} must be >= 2 temperatures")
    if not relative_error > 0:
        raise ValueError(f"relative_error={relative_error} must be > 0, such as 0.05")
    if not mass_weight >= 0:
        raise ValueError(f"mass_weight={mass_weight} must be >= 0")
    qcd.quadrature(nodes)
    if fold and network.expansion is None:
        raise ValueError("fold=True: the network has no expansion to fold; give it a VectorExpansion or set fold=False")
    start, expansion = network, network.expansion
    if fold:
        network = network.clone(expansion=None)
    dtype = network.dtype

    # Rounded, so that 0.375 GeV does not exceed `TIED_ABOVE` by a rounding error.
    train = np.round(np.linspace(lower, upper, points), 12)
    step = (upper - lower) / (points - 1)
    fine = np.linspace(lower, upper, _FINE * (points - 1) + 1)
    sets = {"train": train, "test": train[:-1] + step / 2, "validation": train[:-1] + step / 4, "fine": fine}
    data = _targets(parametrisation, sets)
    known = data.pop("fine")
    rows = lattice.HOTQCD_ROWS if parametrisation.startswith("hotqcd") else lattice.HOTQCD_ROWS[:0]
    rows = rows[(rows[:, 0] > lower - 1e-9) & (rows[:, 0] < upper + 1e-9)]
    data["lattice"] = {"T": rows[:, 0], "pressure": rows[:, 2]}
    data = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), data)
    tied = jnp.asarray(train > TIED_ABOVE, dtype)

    def init(key):
        variables = start.init(key, jnp.ones(1, dtype))
        if fold:
            folded = jax.vmap(lambda params: fold_expansion(expansion, params, layer="dense_0"))(variables["params"])
            variables = {**variables, "params": folded}
        return variables

    def pressure_fn(variables, nodes):
        return lambda T: qcd.scaled_pressure(T, network.apply(variables, T), nodes=nodes)

    def terms(variables, batch):
        def both(T):
            masses = network.apply(variables, T)
            return qcd.scaled_pressure(T, masses, nodes=nodes), masses

        T = batch["T"]
        (p, masses), (anomaly, _) = jax.jvp(both, (T,), (T,))
        miss = {"entropy": 4 * p + anomaly - batch["entropy"], "anomaly": anomaly - batch["anomaly"]}
        if loss == "chi2":
            found = {name: jnp.mean((m / (relative_error * batch[name])) ** 2) for name, m in miss.items()}
        else:
            found = {name: jnp.mean(jnp.abs(m) * T**3) for name, m in miss.items()}
        ud, s, g = jnp.moveaxis(masses, -1, 0)
        return found | {"masses": jnp.mean(tied * (jnp.abs(g / ud - 1.5) + jnp.abs((s - ud) / 0.09 - 1)))}

    def loss_fn(variables, batch, key):
        del key
        found = terms(variables, batch)
        value = found["entropy"] + found["anomaly"] + mass_weight * found["masses"]
        return value, Aux({}, {f"train/loss_{name}": term for name, term in found.items()})

    def evaluate(data, variables, part):
        del part
        T = jnp.concatenate([data[name]["T"] for name in ("test", "validation", "lattice")])
        p, anomaly = qcd.pressure_and_anomaly(pressure_fn(variables, 64), T)
        test, count = data["test"], len(data["test"]["T"])
        p, at_validation, at_lattice = p[:count], p[count : 2 * count], p[2 * count :]
        anomaly = anomaly[:count]
        found = {"pressure": p, "energy": 3 * p + anomaly, "entropy": 4 * p + anomaly, "anomaly": anomaly}
        numbers = {f"test/mae_{name}": jnp.mean(jnp.abs(x - test[name])) for name, x in found.items()}
        numbers["test/worst_pressure"] = jnp.max(jnp.abs(p / test["pressure"] - 1))
        numbers["validation/mae_pressure"] = jnp.mean(jnp.abs(at_validation - data["validation"]["pressure"]))
        if len(at_lattice):
            numbers["lattice/worst_pressure"] = jnp.max(jnp.abs(at_lattice / data["lattice"]["pressure"] - 1))
        return {name: Average(number, jnp.ones((), number.dtype)) for name, number in numbers.items()}

    def predict(variables):
        T = jnp.asarray(fine, dtype)
        eos = qcd.equation_of_state(pressure_fn(variables, 64), T)
        return jnp.concatenate([jnp.stack(list(eos), -1), network.apply(variables, T)], -1)

    densities = np.stack([known[name] for name in qcd.EquationOfState._fields], -1)
    drawn = np.concatenate([densities, lattice.reference_masses(parametrisation, fine)], -1)

    return full_batch_task(
        data=data,
        init=init,
        sample=lambda data, key, step: data["train"],
        loss=loss_fn,
        evaluate=evaluate,
        primary="test/mae_pressure",
        selection="validation/mae_pressure",
        outputs=lambda data, variables: network.apply(variables, data["validation"]["T"]),
        grid=Grid(fine[:, None], drawn, ("T",), UNKNOWNS, predict),
        model=network,
    )


def _targets(parametrisation, sets):
    """Reference values {set: {'T', 'pressure', ..}}. One call for all sets, since every new length would recompile."""
    ends = np.cumsum([len(T) for T in sets.values()])[:-1]
    found = lattice.reference(parametrisation, np.concatenate(list(sets.values())))._asdict()
    parts = {density: np.split(values, ends) for density, values in found.items()}
    return {name: {"T": T} | {d: parts[d][i] for d in parts} for i, (name, T) in enumerate(sets.items())}
