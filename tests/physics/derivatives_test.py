"""Four ways of differentiating that must agree, and a fifth that knows no calculus: differences in 60 digits."""

import functools
import itertools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from sbjax.physics.derivatives import MODES, Partial, mlp_partials, parse_partial, partials
from sbjax.physics.equation import spread
from sbjax.physics.pdes import EQUATIONS, make_equation

pytestmark = pytest.mark.usefixtures("x64")

ACTIVATIONS = {"tanh": jnp.tanh, "sin": jnp.sin}


def make_params(sizes, seed=0):
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=(a, b)) / np.sqrt(a), rng.normal(size=b)) for a, b in itertools.pairwise(sizes)]


def make_mlp(params, activation):
    def u_fn(x):
        for weight, bias in params[:-1]:
            x = ACTIVATIONS[activation](x @ weight + bias)
        return x @ params[-1][0] + params[-1][1]

    return u_fn


def assert_close(found, expected):
    """To 1e-12 of the largest value of each partial over the points."""
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-12 * abs(np.asarray(values)).max())


def asks():
    """What the equations ask for, with their conditions, each set once and under the name of an equation."""
    found = {}
    for name in EQUATIONS:
        equation = make_equation(name)
        names = {name for source in (equation, *equation.conditions) for name in source.partials}
        found.setdefault((equation.coordinates, equation.unknowns, tuple(sorted(names))), equation)
    return {equation.name: (equation, names) for (*_, names), equation in found.items()}


ASKS = asks()


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("name", "activation"), [*((name, "tanh") for name in ASKS), ("euler_beam", "sin"), ("kovasznay", "sin")]
)
def test_all_modes_agree_on_all_that_equations_ask_for(name, activation):
    equation, names = ASKS[name]
    ends = {"coordinates": equation.coordinates, "unknowns": equation.unknowns}
    params = make_params((len(equation.coordinates), 12, 12, len(equation.unknowns)))
    u_fn, points = make_mlp(params, activation), jnp.asarray(spread(equation, 30))
    results = {
        mode: jax.jit(jax.vmap(lambda x, m=mode: partials(u_fn, x, names, mode=m, **ends)))(points) for mode in MODES
    }
    results["mlp"] = jax.jit(lambda x: mlp_partials(params, x, names, activation=activation, **ends))(points)
    for found in results.values():
        assert_close(found, results["nested"])


@pytest.mark.sampled(1)
@pytest.mark.parametrize("mode", MODES)
def test_mixed_partials_of_several_unknowns(mode):
    names = ("u", "v_xt", "v_tx", "u_xxt", "u_xtt", "v_xtt", "u_t", "v_ttt")
    u_fn = make_mlp(make_params((2, 8, 2)), "tanh")
    x = jnp.array([0.3, -0.7])
    found = jax.jit(lambda x: partials(u_fn, x, names, coordinates="xt", unknowns="uv", mode=mode))(x)
    assert found.keys() == set(names)
    assert found["v_xt"] == found["v_tx"]
    for name in names:
        unknown, orders = parse_partial(name, "xt", "uv")
        expected = functools.reduce(derivative, directions(orders), lambda p, k=unknown: u_fn(p)[k])
        np.testing.assert_allclose(found[name], jax.jit(expected)(x), rtol=1e-12)


def derivative(f, i):
    return lambda p: jax.grad(f)(p)[i]


def directions(orders):
    return [i for i, order in enumerate(orders) for _ in range(order)]


@pytest.mark.parametrize(
    ("activation", "names"),
    [("tanh", ("u", "u_x", "u_xx", "u_xxx", "u_xxxx", "u_tt", "u_xt", "u_xxt")), ("sin", ("u_xxx", "u_xtt"))],
)
def test_against_finite_differences(activation, names):
    """A network written in mpmath, differenced in 60 digits, where differences are good to more than ours are."""
    params, point = make_params((2, 4, 1)), (0.4, -0.2)
    found = partials(
        make_mlp(params, activation), jnp.array(point), names, coordinates="xt", unknowns="u", mode="forward"
    )
    with mpmath.workdps(60):
        (w1, b1), (w2, b2) = [(w.tolist(), b.tolist()) for w, b in params]

        def u(x, t):
            hidden = [getattr(mpmath, activation)(x * w1[0][j] + t * w1[1][j] + b1[j]) for j in range(4)]
            return b2[0] + mpmath.fsum(h * w2[j][0] for j, h in enumerate(hidden))

        for name in names:
            _, orders = parse_partial(name, "xt", "u")
            expected = (
                mpmath.diff(u, tuple(map(mpmath.mpf, point)), orders) if any(orders) else u(*map(mpmath.mpf, point))
            )
            np.testing.assert_allclose(found[name], float(expected), rtol=1e-12)


def test_mlp_partials_of_any_batch_shape_and_depth():
    params = make_params((3, 5, 5, 5, 2))
    points = jnp.asarray(np.random.default_rng(1).normal(size=(2, 4, 3)))
    names = ("u", "v", "u_zzzz", "v_x", "v_yyy")
    ends = {"coordinates": "xyz", "unknowns": "uv"}
    found = jax.jit(lambda x: mlp_partials(params, x, names, **ends))(points)
    u_fn = make_mlp(params, "tanh")
    expected = jax.jit(jax.vmap(jax.vmap(lambda x: partials(u_fn, x, names, mode="forward", **ends))))(points)
    assert_close(found, expected)
    assert_close(mlp_partials(params, points[0, 0], ("v",), **ends), {"v": expected["v"][0, 0]})


def test_gradients_by_parameters_agree():
    """What training needs: the slope of a squared residual by the weights."""
    equation = make_equation("heat")
    ends = {"coordinates": equation.coordinates, "unknowns": equation.unknowns}
    params = make_params((2, 8, 1))
    points = jnp.asarray(spread(equation, 10))

    def loss(params, mode):
        if mode == "mlp":
            d = mlp_partials(params, points, equation.partials, **ends)
        else:
            d = jax.vmap(lambda x: partials(make_mlp(params, "tanh"), x, equation.partials, mode=mode, **ends))(points)
        return (jax.vmap(equation.residual)(points, d)["equation"] ** 2).mean()

    slopes = {mode: jax.jit(jax.grad(loss), static_argnums=1)(params, mode) for mode in (*MODES, "mlp")}
    for slope in slopes.values():
        for a, b in zip(jax.tree.leaves(slope), jax.tree.leaves(slopes["nested"])):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * abs(b).max())


def test_float32_stays_float32():
    u_fn = make_mlp(jax.tree.map(jnp.float32, make_params((2, 4, 1))), "tanh")
    for mode in MODES:
        found = jax.eval_shape(
            lambda x, m=mode: partials(u_fn, x, ("u_xx",), coordinates="xt", unknowns="u", mode=m),
            jnp.float32([0.1, 0.2]),
        )
        assert found["u_xx"].dtype == jnp.float32


def test_a_tower_is_built_once_for_all_its_orders():
    """u_x, u_xx and u_xxx come out of one pass: the function is traced once by 'taylor', not once a name."""
    traced = []

    def u_fn(x):
        traced.append(x)
        return jnp.sin(x)

    partials(u_fn, jnp.ones(1), ("u", "u_x", "u_xx", "u_xxx"), coordinates="x", unknowns="u", mode="taylor")
    assert len(traced) == 2  # once for the shape of the outputs


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("w_x", "partial 'w_x': 'w' is not an unknown.*known: u, v"),
        ("u_xz", "partial 'u_xz': 'xz' is not made of the coordinates x, t; write u_xt"),
        ("u_", "partial 'u_': '' is not made of the coordinates"),
        ("ux", "partial 'ux': 'ux' is not an unknown, did you mean 'u'"),
    ],
)
def test_names_that_do_not_parse(name, message):
    with pytest.raises(ValueError, match=message):
        parse_partial(name, ("x", "t"), ("u", "v"))


def test_names_of_numbered_coordinates():
    coordinates = tuple(f"x{i}" for i in range(1, 12))
    assert parse_partial("u_x1x11", coordinates, ("u",)) == Partial(0, (1, *[0] * 9, 1))


@pytest.mark.wrong_types
def test_misuse_is_named():
    u_fn, x = make_mlp(make_params((2, 4, 1)), "tanh"), jnp.zeros(2)
    with pytest.raises(ValueError, match="mode='foward' is unknown, did you mean 'forward'"):
        partials(u_fn, x, ("u",), coordinates="xt", unknowns="u", mode="foward")
    with pytest.raises(ValueError, match=r"u_fn gives shape \(1,\), needs \(2,\): an output for u, v"):
        partials(u_fn, x, ("u",), coordinates="xt", unknowns="uv")
    with pytest.raises(ValueError, match=r"x has shape \(5, 2\), needs \(2,\): one point"):
        partials(u_fn, jnp.zeros((5, 2)), ("u",), coordinates="xt", unknowns="u")


def test_jet_without_a_rule_says_so():
    ask = {"names": ("u_xx",), "coordinates": "x", "unknowns": "u", "mode": "taylor"}
    with pytest.raises(NotImplementedError, match="jet has no rule for atan; use another mode"):
        partials(jnp.arctan, jnp.ones(1), **ask)
    with pytest.raises(NotImplementedError, match="jet fails in u_fn"):
        partials(jax.nn.softplus, jnp.ones(1), **ask)
    with pytest.raises(KeyError, match="mine"):  # the function's own errors pass
        partials(lambda x: {"yours": x}["mine"], jnp.ones(1), **ask)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ("u_xt",)}, "partial 'u_xt' is mixed"),
        ({"names": ("u_xxxxx",)}, "of order above 4"),
        ({"activation": "tan"}, "activation='tan' is unknown, did you mean 'tanh'"),
        ({"params": make_params((2, 1))}, "params holds 1 layers, needs at least 2"),
        ({"params": make_params((3, 4, 1))}, "params go from 3 inputs to 1 outputs"),
        ({"x": jnp.zeros((7, 3))}, "x has shape"),
        ({"unknowns": "uv"}, "there are 2 coordinates and 2 unknowns"),
    ],
)
def test_misuse_of_mlp_partials(change, message):
    good = {
        "params": make_params((2, 4, 1)),
        "x": jnp.zeros((7, 2)),
        "names": ("u",),
        "coordinates": "xt",
        "unknowns": "u",
    }
    with pytest.raises(ValueError, match=message):
        mlp_partials(**good | change)
