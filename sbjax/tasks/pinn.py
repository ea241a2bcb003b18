"""A differential equation as a task: a field is trained until it meets the equation and its conditions."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sbjax import rng
from sbjax.expansion.folding import fold as fold_expansion
from sbjax.models.field import Field
from sbjax.names import near
from sbjax.physics import sampling
from sbjax.physics.equation import Equation, evaluate, on_face, spread
from sbjax.physics.errors import normalised_errors
from sbjax.tasks import balance as balance_lib
from sbjax.tasks.field_partials import make_derive, make_solution
from sbjax.tasks.task import Aux, Average, Grid, Task

CANDIDATES = 4  # points that 'adaptive' looks at for one that it takes
GRID = {1: (401,), 2: (101, 101)}  # what is drawn, by the number of coordinates


class Points(NamedTuple):
    """How many collocation points, and how they change.

    Attributes:
        interior: where the equation is asked to hold.
        boundary: for each condition on other faces than t = 0.
        initial: for each condition at t = 0.
        sampler: a name of `sampling.SAMPLERS`.
        every: steps between two draws; 0 = the same points all the time.
        steps: draws end after this many steps, so that a deterministic method can follow; None = never.
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
    """Minimise sum_i w_i mean |r_i|^2 over the equation's terms and conditions.

    The network is trained in float32 or float64 as `field.dtype` says. Numbers reported: 'train/loss' with weights,
    'train/loss_<term>' and 'validation/loss' (on other points) without, and on a third set of points against the
    equation's reference 'test/l2', 'test/l1' (relative) and 'test/max'; of several unknowns the root mean square over
    them, and 'test/l2_<unknown>'. None is below the reference's own error.

    Args:
        equation: what is to be solved.
        field: the network; its bounds are those of the equation.
        points: collocation points.
        weights: of terms other than 1, {'initial_u': 10.0}.
        balance: 'fixed'; 'gradient_norm' or 'self_adaptive' on top of `weights`, see `sbjax.tasks.balance`.
        balance_every: steps between two changes of 'gradient_norm'; 'self_adaptive' changes at every step.
        balance_steps: changes end after this many steps; None = never.
        derivatives: how residuals are differentiated, see `sbjax.tasks.field_partials`.
        hard: meet the conditions that the equation's ansatz meets by construction; they leave the loss.
        fold: start from a network with `field.expansion`, folded into one on raw input: the control that has the
            expansion's starting values and none of its extra parameters.
        test_points: how many points the two held-out sets have.

    Raises:
        ValueError: an unknown term, sampler or mode, no points, a network of other outputs, an ansatz that is not
            there, self-adaptive weights of points that are drawn again.
    """
    balance_lib.check_balance(balance)
    if field.unknowns != len(equation.unknowns):
        raise ValueError(
            f"the network has {field.unknowns} outputs, {equation.name} the unknowns {', '.join(equation.unknowns)}: "
            f"it needs {len(equation.unknowns)}"
        )
    if balance == "self_adaptive" and points.every:
        raise ValueError(
            f"task.balance='self_adaptive' keeps a weight a point: task.resample_every={points.every} must be 0"
        )
    if points.sampler == "adaptive" and not points.every:
        raise ValueError("task.sampler='adaptive' draws points again: set task.resample_every, such as 500")
    for name, least in (("points", points.interior), ("boundary_points", points.boundary),
                        ("initial_points", points.initial), ("test_points", test_points)):  # fmt: skip
        if least < 1:
            raise ValueError(f"task.{name}={least} must be >= 1: without points nothing is asked of the network")

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
        """{term: [n]}, zero where the equation and its conditions hold."""
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
            raise ValueError(
                f"task.weights: {name!r} is no term of the loss{near(name, terms)}; terms: {', '.join(terms)}"
            )
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
        """Collections that change between steps. Their conditions depend on the step alone, so that mapped replicas
        do not pay for the branch not taken."""
        changed, step = {}, batch["step"]
        if balance == "self_adaptive":
            before, found = variables["weights"], jax.lax.stop_gradient(found)
            after = balance_lib.by_ascent(before, found)
            changed["weights"] = _until(balance_steps, step, after, before)
        if balance == "gradient_norm":

            def losses(params):
                squares = residuals({**variables, "params": params}, batch)
                return {name: jnp.mean(r**2) for name, r in squares.items()}

            changed["weights"] = jax.lax.cond(
                _due(step, balance_every, balance_steps),
                lambda: balance_lib.by_gradient_norm(variables["weights"], losses, variables["params"]),
                lambda: variables["weights"],
            )
        if adaptive:

            def again():
                keys = jax.random.split(key)
                unit = jax.random.uniform(keys[0], (CANDIDATES * points.interior, d), dtype)
                return sampling.draw_adaptive(
                    lambda x: jnp.sqrt(sum(r**2 for r in interior_residuals(variables, x).values())),
                    sampling.to_box(equation, unit), keys[1], points.interior,
                )  # fmt: skip

            old = variables["points"]["interior"]
            changed["points"] = {"interior": jax.lax.cond(_due(step, points.every, points.steps), again, lambda: old)}
        return changed

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

    return Task(
        data=data,
        init=init,
        sample=sample,
        loss=loss,
        evaluate=evaluate_fn,
        parts=1,
        batch_size=1,  # collocation points are not split over devices
        epoch_steps=None,
        primary="test/l2",
        selection="validation/loss",
        goal="min",
        outputs=outputs,
        residuals=residual_vector,
        grid=_grid(equation, solution, dtype),
        model=field,
    )


def _grid(equation, solution, dtype) -> Grid | None:
    d = len(equation.coordinates)
    if d not in GRID:
        return None
    axes = [np.linspace(a, b, n) for a, b, n in zip(equation.lower, equation.upper, GRID[d])]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    shape = (*GRID[d], len(equation.unknowns))
    flat = points.reshape(-1, d)

    def predict(variables):
        return jax.vmap(lambda x: solution(variables, x))(jnp.asarray(flat, dtype)).reshape(shape)

    return Grid(points, evaluate(equation, flat).reshape(shape), equation.coordinates, equation.unknowns, predict)


def _due(step, every, steps) -> Array:
    """Whether this step ends a period and the changes have not ended."""
    due = step % every == every - 1
    return due if steps is None else due & (step < steps)


def _until(steps, step, after, before) -> dict[str, Float[Array, "..."]]:
    if steps is None:
        return after
    return jax.tree.map(lambda new, old: jnp.where(step < steps, new, old), after, before)
