"""Physics-informed training: a field minimises the residuals of a differential equation and its conditions."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sbjax import rng
from sbjax.common.names import near
from sbjax.expansion.folding import fold as fold_expansion
from sbjax.models.field import Field
from sbjax.physics import sampling
from sbjax.physics.equation import Equation, evaluate, on_face, spread
from sbjax.physics.errors import normalised_errors
from sbjax.tasks import balance as balance_lib
from sbjax.tasks.field_partials import make_derive, make_solution
from sbjax.tasks.full_batch import full_batch_task
from sbjax.tasks.smoothness import check_activation
from sbjax.tasks.solution_grid import make_grid
from sbjax.tasks.task import Aux, Average, Task

CANDIDATES = 4  # candidates per point drawn by the 'adaptive' sampler


class Points(NamedTuple):
    """Number and resampling of collocation points.

    Attributes:
        interior: number of interior points, at which the equation is enforced.
        boundary: number of points for each boundary condition.
        initial: number of points for each initial condition (t = 0).
        sampler: a name of `sampling.SAMPLERS`.
        every: steps between two draws; 0 = fixed points.
        steps: points are frozen after this many steps, for a second phase with a deterministic optimiser; None = never.
    """

    interior: int = 2000
    boundary: int = 200
    initial: int = 200
    sampler: str = "uniform"
    every: int = 0
    steps: int | None = None


def make_pinn_task(
    equation: Equation,
    field: Field,
    *,
    points: Points = Points(),  # noqa: B008 (immutable)
    weights: Mapping[str, float] | None = None,
    balance: str = "fixed",
    balance_every: int = 100,
    balance_steps: int | None = None,
    derivatives: str = "auto",
    hard: bool = False,
    fold: bool = False,
    test_points: int = 4096,
) -> Task:
    """Minimise sum_i w_i mean |r_i|^2 over the terms of an equation and its conditions.

    Training runs in `field.dtype`. Metrics:
        'train/loss': weighted; 'train/loss_<term>': unweighted.
        'validation/loss': unweighted, on held-out points.
        'test/l2', 'test/l1' (relative) and 'test/max': errors against the reference solution on a third set of points.
            For several unknowns their root mean square, and one metric each: 'test/l2_<unknown>'. No error is reported
            below the certified error of the reference.

    Args:
        equation: the equation to solve.
        field: the network, with the bounds of the equation.
        points: collocation points.
        weights: weights w_i that differ from 1, such as {'initial_u': 10.0}.
        balance: 'fixed'; 'gradient_norm' or 'self_adaptive' adapt further weights, see `sbjax.tasks.balance`.
        balance_every: steps between two updates of 'gradient_norm'; 'self_adaptive' updates at every step.
        balance_steps: weights are frozen after this many steps; None = never.
        derivatives: derivative mode of the residuals, see `sbjax.tasks.field_partials`.
        hard: satisfy conditions by the equation's ansatz; they are then no terms of the loss.
        fold: train on raw input, starting from weights into which `field.expansion` was folded: a control with the
            initial function of the expanded network but without its extra parameters.
        test_points: number of validation points and of test points.

    Raises:
        ValueError: an unknown term, sampler, balance or derivative mode; a number of points below 1; a network whose
            outputs do not match the unknowns; `hard` without an ansatz; 'self_adaptive' with resampled points;
            'adaptive' without resampling.
    """
    balance_lib.check_balance(balance)
    if field.unknowns != len(equation.unknowns):
        raise ValueError(
            f"the network has {field.unknowns} outputs, {equation.name} the unknowns {', '.join(equation.unknowns)}: "
            f"it needs {len(equation.unknowns)}"
        )
    if balance == "self_adaptive" and points.every:
        raise ValueError(
            f"balance='self_adaptive' has one weight per point, so points cannot be resampled every {points.every} "
            "steps; set every=0"
        )
    if points.sampler == "adaptive" and not points.every:
        raise ValueError("sampler='adaptive' resamples points; set every > 0 (steps between two draws), such as 500")
    for name, least in (("points", points.interior), ("boundary_points", points.boundary),
                        ("initial_points", points.initial), ("test_points", test_points)):  # fmt: skip
        if least < 1:
            raise ValueError(f"{name}={least} must be >= 1, otherwise a term of the loss has no points")

    check_activation(equation, field)
    start_field = field
    if fold:
        field = field.clone(expansion=None)
    derive = make_derive(equation, field, mode=derivatives, hard=hard)
    solution = make_solution(equation, field, hard=hard)
    met = equation.ansatz.conditions if hard else ()
    conditions = [condition for condition in equation.conditions if condition.name not in met]
    d, dtype = len(equation.coordinates), field.dtype

    sizes = {"interior": points.interior}
    for condition in conditions:
        wanted = points.initial if sampling.is_initial(condition) else points.boundary
        sizes[condition.name] = sampling.face_points(equation, condition, wanted)
    designs = {name: sampling.unit_design(points.sampler, size, d) for name, size in sizes.items()}
    adaptive = points.sampler == "adaptive"

    held_out = spread(equation, 2 * test_points)
    data = {
        "designs": {name: design for name, design in designs.items() if design is not None},
        "test": held_out[::2],
        "reference": evaluate(equation, held_out[::2]),
        "validation": held_out[1::2],
    }
    data = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), data)

    def draw(data, key, name):
        key = rng.stream(key, name)
        return sampling.draw_unit(data["designs"].get(name), key, (sizes[name], d), dtype)

    def place(unit):
        placed = {"interior": sampling.to_box(equation, unit["interior"])}
        return placed | {c.name: sampling.to_faces(equation, c, unit[c.name]) for c in conditions}

    def sample(data, key, step):
        period = 0
        if points.every and not adaptive:
            period = (step if points.steps is None else jnp.minimum(step, max(points.steps - 1, 0))) // points.every
        key = jax.random.fold_in(key, period)
        return place({name: draw(data, key, name) for name in sizes}) | {"step": jnp.asarray(step, jnp.int32)}

    def residuals(variables, batch):
        """Residuals {term: [n]} of the equation and its conditions."""
        interior = variables["points"]["interior"] if adaptive else batch["interior"]
        found = dict(interior_residuals(variables, interior))
        for condition in conditions:
            x = batch[condition.name]
            if condition.kind == "periodic":
                sides = [derive(variables, on_face(equation, face, x), condition.partials) for face in condition.faces]
            else:
                sides = [derive(variables, x, condition.partials)]
            found[condition.name] = jax.vmap(condition.residual)(x, *sides)
        return found

    def interior_residuals(variables, x):
        return jax.vmap(equation.residual)(x, derive(variables, x, equation.partials))

    def term_sizes():
        variables = jax.eval_shape(field.init, jax.random.key(0), jax.ShapeDtypeStruct((d,), dtype))
        some = jax.ShapeDtypeStruct((points.interior, d), dtype)
        names = jax.eval_shape(interior_residuals, variables, some)
        return {**dict.fromkeys(names, points.interior), **{c.name: sizes[c.name] for c in conditions}}

    terms = term_sizes()
    for name in weights or {}:
        if name not in terms:
            raise ValueError(f"weights: {name!r} is no term of the loss{near(name, terms)}; terms: {', '.join(terms)}")
    factors = {name: float((weights or {}).get(name, 1.0)) for name in terms}

    def init(key):
        variables = start_field.init(key, jnp.zeros(d, dtype))
        if fold:
            variables = {**variables, "params": fold_expansion(start_field.expansion, variables["params"])}
        if balance != "fixed":
            variables = {**variables, "weights": balance_lib.initial_weights(balance, terms, dtype)}
        if adaptive:
            unit = jax.random.uniform(rng.stream(key, "points"), (points.interior, d), dtype)
            variables = {**variables, "points": {"interior": sampling.to_box(equation, unit)}}
        return variables

    def loss(variables, batch, key):
        found = residuals(variables, batch)
        parts = balance_lib.weighted(balance, variables.get("weights", {}), found)
        value = sum(factors[name] * part for name, part in parts.items())
        scalars = {f"train/loss_{name}": jnp.mean(r**2) for name, r in found.items()}
        return value, Aux(updates(jax.lax.stop_gradient(variables), batch, key, found), scalars)

    def updates(variables, batch, key, found):
        """New values of the collections 'weights' and 'points'. The predicates depend on the step only, which vmap over
        replicas leaves scalar: `cond` stays a branch instead of becoming a select that evaluates both sides."""
        changed, step = {}, batch["step"]
        if balance == "self_adaptive":
            before, found = variables["weights"], jax.lax.stop_gradient(found)
            after = balance_lib.by_ascent(before, found)
            changed["weights"] = _until(balance_steps, step, after, before)
        if balance == "gradient_norm":
            changed["weights"] = jax.lax.cond(
                _due(step, balance_every, balance_steps),
                lambda: weighed(variables, batch, key),
                lambda: variables["weights"],
            )
        if adaptive:
            old, due = variables["points"]["interior"], _due(step, points.every, points.steps)
            changed["points"] = {"interior": jax.lax.cond(due, lambda: drawn(variables, batch, key), lambda: old)}
        return changed

    def weighed(variables, batch, key):
        def losses(params):
            squares = residuals({**variables, "params": params}, batch)
            return {name: jnp.mean(r**2) for name, r in squares.items()}

        return balance_lib.by_gradient_norm(variables["weights"], losses, variables["params"])

    def drawn(variables, batch, key):
        keys = jax.random.split(key)
        unit = jax.random.uniform(keys[0], (CANDIDATES * points.interior, d), dtype)
        return sampling.draw_adaptive(
            lambda x: jnp.sqrt(sum(r**2 for r in interior_residuals(variables, x).values())),
            sampling.to_box(equation, unit), keys[1], points.interior,
        )  # fmt: skip

    def residual_vector(variables, batch, key):
        """r with loss = |r|^2."""
        found = residuals(variables, batch)
        own = variables.get("weights", {})

        def scaled(name, r):
            w = own.get(name, jnp.ones((), dtype))
            w = jnp.sqrt(w) if balance == "gradient_norm" else w
            return jnp.sqrt(factors[name] / len(r)) * w * r

        return jnp.concatenate([scaled(name, r) for name, r in found.items()])

    def evaluate_fn(data, variables, part):
        del part
        unit = (data["validation"] - jnp.asarray(equation.lower, dtype)) / jnp.asarray(
            np.subtract(equation.upper, equation.lower), dtype
        )
        held = {name: unit[np.arange(size) % test_points] for name, size in sizes.items() if name != "interior"}
        found = residuals(
            {**variables, "points": {"interior": data["validation"]}},
            {**place({"interior": unit, **held}), "interior": data["validation"]},
        )
        numbers = {"validation/loss": sum(jnp.mean(r**2) for r in found.values())}
        predicted = jax.vmap(lambda x: solution(variables, x))(data["test"])
        reference = equation.reference
        errors = normalised_errors(
            predicted, data["reference"], floor=reference.floor, floor_max=reference.floor_max
        )._asdict()
        for name, error in errors.items():
            short = "max" if name == "maximum" else name
            numbers[f"test/{short}"] = jnp.sqrt(jnp.mean(error.value**2))
            if len(equation.unknowns) > 1:
                numbers |= {f"test/{short}_{u}": error.value[i] for i, u in enumerate(equation.unknowns)}
        return {name: Average(number, jnp.ones((), number.dtype)) for name, number in numbers.items()}

    def outputs(data, variables):
        return jax.vmap(lambda x: solution(variables, x))(data["validation"][:256])

    return full_batch_task(
        data=data,
        init=init,
        sample=sample,
        loss=loss,
        evaluate=evaluate_fn,
        primary="test/l2",
        selection="validation/loss",
        outputs=outputs,
        residuals=residual_vector,
        grid=make_grid(equation, solution, dtype),
        model=field,
        besides=(((weighed, balance_every),) * (balance == "gradient_norm") + ((drawn, points.every),) * adaptive),
    )


def _due(step, every, steps) -> Array:
    """Whether an update is due: the last step of a period, before the freeze at `steps`."""
    due = step % every == every - 1
    return due if steps is None else due & (step < steps)


def _until(steps, step, after, before) -> dict[str, Float[Array, "..."]]:
    """`after` before step `steps`, then `before`."""
    if steps is None:
        return after
    return jax.tree.map(lambda new, old: jnp.where(step < steps, new, old), after, before)
