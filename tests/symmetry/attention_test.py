"""The gauge group of transformers, folding, balancing and matching, on small networks in double precision."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.optimize

from sbjax import derive_spec, match_weights, trees
from sbjax.common import devices
from sbjax.models.text import TextTransformer
from sbjax.models.transformer import Transformer, rope_frequencies
from sbjax.symmetry import attention, attention_fold, attention_matching
from sbjax.symmetry.attention_layout import layout_of, stream_groups
from sbjax.symmetry.attention_matching import distance, match_transformers

X = np.random.default_rng(0).normal(size=(6, 5, 3))
NETS = {
    "rms": {"norm": "rms", "activation": "relu"},
    "layer": {"norm": "layer", "activation": "gelu", "bias": True},
    "rope": {"norm": "rms", "activation": "tanh", "positions": "rope"},
    "layer_rope": {"norm": "layer", "activation": "relu", "positions": "rope", "bias": True},
}


@pytest.fixture(scope="module", params=NETS)
def made(request):
    """(function of params, params, layout) of a network with everything at random, gains and biases too."""
    options = NETS[request.param]
    return make(**options)


def make(seed=1, **options):
    net = Transformer(classes=3, width=8, depth=1, heads=2, size=4, hidden=6, **options)
    with devices.double():
        params = net.init(jax.random.key(seed), X)["params"]
        random = np.random.default_rng(seed)
        params = jax.tree.map(lambda leaf: np.asarray(leaf) + 0.3 * random.normal(size=leaf.shape), params)

        @jax.jit
        def compiled(params):
            return net.apply({"params": params}, X)

    def apply(params):
        with devices.double():
            return np.asarray(compiled(jax.tree.map(jnp.asarray, params)))

    rope = rope_frequencies(4) if options.get("positions") == "rope" else ()
    return apply, params, layout_of(params, norm=options["norm"], activation=options["activation"], rope=rope)


def gap(a, b):
    return np.abs(a - b).max() / np.abs(a).max()


def flat(gauge):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gauge)])


def test_folding_balancing_and_every_gauge_leave_the_function(made):
    apply, params, layout = made
    y = apply(params)
    folded = attention_fold.fold(layout, params)
    assert gap(y, apply(folded)) < 1e-12
    for name, leaf in trees.flatten(folded).items():
        if name.endswith("/scale"):
            assert (leaf == 1).all()
    again = attention_fold.fold(layout, folded)
    assert distance(folded, again) < 1e-14
    balanced, _ = attention_fold.balance(layout, folded)
    assert gap(y, apply(balanced)) < 1e-12
    for seed in range(3):
        gauge = attention.random_gauge(jax.random.key(seed), layout, params)
        assert gap(y, apply(attention.transform(layout, folded, gauge))) < 1e-10
    for stream in stream_groups(layout.norm, folded=False):  # gains are kept
        gauge = attention.random_gauge(jax.random.key(7), layout, params, stream=stream)
        assert gap(y, apply(attention.transform(layout, params, gauge))) < 1e-10


def test_what_the_norm_or_rope_does_not_admit_changes_the_function(made):
    apply, params, layout = made
    folded, identity = attention_fold.fold(layout, params), attention.identity_gauge(layout, params)
    turn = attention._random_orthogonal(np.random.default_rng(0), 8)
    changed = gap(apply(params), apply(attention.transform(layout, params, identity._replace(stream=turn))))
    assert changed > 1e-2  # with gains, no rotation
    changed = gap(apply(params), apply(attention.transform(layout, folded, identity._replace(stream=turn))))
    assert (changed > 1e-2) == (layout.norm == "layer")  # without gains, one that moves the mean
    general = attention.random_gauge(jax.random.key(0), layout._replace(rope=()), params)
    general = identity._replace(layers=(identity.layers[0]._replace(qk=general.layers[0].qk), identity.layers[1]))
    changed = gap(apply(params), apply(attention.transform(layout, folded, general)))
    assert (changed > 1e-2) == bool(layout.rope)
    signs = np.array([-1.0, *np.ones(5)])
    flipped = identity._replace(layers=(identity.layers[0], identity.layers[1]._replace(scale=signs)))
    changed = gap(apply(params), apply(attention.transform(layout, folded, flipped)))
    assert (changed > 1e-3) == (layout.activation != "tanh")


def test_it_is_a_group(made):
    _, params, layout = made
    folded = attention_fold.fold(layout, params)
    first, second = (attention.random_gauge(jax.random.key(seed), layout, params) for seed in (1, 2))
    both = attention.transform(layout, folded, attention.compose(first, second))
    assert distance(both, attention.transform(layout, attention.transform(layout, folded, first), second)) < 1e-13
    for pair in ((first, attention.invert(first)), (attention.invert(first), first)):
        np.testing.assert_allclose(
            flat(attention.compose(*pair)), flat(attention.identity_gauge(layout, params)), atol=1e-12
        )


def test_balanced_factors_have_the_least_squares(made):
    """Against a general minimiser over U, of which phases and rotations are free."""
    _, params, layout = made
    leaves = trees.flatten(attention_fold.balance(layout, attention_fold.fold(layout, params))[0])
    query, key, value, out = attention_fold.attention_factors(leaves, "attention_0")
    if layout.rope:
        sizes = [(np.abs(attention.planes(x)) ** 2).sum(1) for x in (query, key)]
        np.testing.assert_allclose(*sizes, rtol=1e-9)
    else:
        np.testing.assert_allclose(query[0].T @ query[0], key[0].T @ key[0], rtol=1e-8, atol=1e-10)

    def squares(flat):
        u = np.eye(4) + flat.reshape(4, 4)
        return np.sum((value[0] @ u) ** 2) + np.sum((np.linalg.inv(u) @ out[0]) ** 2)

    start = 0.1 * np.random.default_rng(0).normal(size=16)
    least = scipy.optimize.minimize(squares, start, method="BFGS").fun
    assert squares(np.zeros(16)) == pytest.approx(least, rel=1e-6)


def test_a_planted_gauge_is_found_again(made):
    _, params, layout = made
    for seed in range(3):
        gauge = attention.random_gauge(jax.random.key(seed), layout, params)
        copy = attention.transform(layout, attention_fold.fold(layout, params), gauge)
        found = match_transformers(layout, params, copy, key=jax.random.key(0))
        assert found.converged
        assert distance(found.reference, found.params) < 1e-8
        left = attention.compose(found.gauge, attention.invert(found.reference_gauge))
        undone, identity = attention.compose(gauge, left), attention.identity_gauge(layout, params)
        if layout.rope:  # few embeddings and no positions: values of these networks have directions that no weight uses
            layers = (new._replace(vo=old.vo) if hasattr(new, "vo") else new
                      for new, old in zip(undone.layers, identity.layers, strict=True))  # fmt: skip
            undone = undone._replace(layers=tuple(layers))
        np.testing.assert_allclose(flat(undone), flat(identity), atol=1e-6)


def test_matching_leaves_functions_and_only_comes_nearer(made):
    apply, a, layout = made
    apply_b, b, _ = make(seed=5, **next(o for o in NETS.values() if _same(o, layout)))
    del apply_b
    groups = [("identity", "identity"), ("permutation", "permutation"), ("identity", "full"), ("orthogonal", "full")]
    for stream, factors in groups:
        found = match_transformers(
            layout, a, b, key=jax.random.key(0), stream=stream, factors=factors, restarts=2, max_sweeps=30
        )
        assert gap(apply(a), apply(found.reference)) < 1e-10
        assert gap(apply(b), apply(found.params)) < 1e-10
        assert (np.diff(found.history) >= 0).all()
        assert found.objective == max(found.restarts)


def _same(options, layout):
    norm, rope = options["norm"] == layout.norm, (options.get("positions") == "rope") == bool(layout.rope)
    return norm and rope and options["activation"] == layout.activation


def test_permutations_are_at_least_those_of_the_derived_spec():
    """Which has one order for the entries of all heads of a layer."""
    _, a, layout = make(1, **NETS["rms"])
    _, b, _ = make(2, **NETS["rms"])
    net = Transformer(classes=3, width=8, depth=1, heads=2, size=4, hidden=6, norm="rms", activation="relu")
    spec = derive_spec(lambda p, x: net.apply({"params": p}, x), a, jnp.asarray(X, jnp.float32))
    known = match_weights(spec, a, b, key=jax.random.key(0), restarts=5)
    found = match_transformers(
        layout, a, b, key=jax.random.key(0), stream="permutation", factors="permutation", restarts=5
    )
    assert found.objective > 0.97 * known.objective


@pytest.mark.parametrize("rope", [False, True])
def test_heads_against_all_orders_and_an_independent_solver(rope):
    _, a, layout = make(1, **NETS["rope" if rope else "rms"])
    _, b, _ = make(2, **NETS["rope" if rope else "rms"])
    found = match_transformers(layout, a, b, key=jax.random.key(0), stream="identity")
    sides = [attention_fold.balance(layout, attention_fold.fold(layout, params))[0] for params in (a, b)]
    first, second = (attention_fold.attention_factors(trees.flatten(side), "attention_0") for side in sides)

    def gain(i, j):
        cross = sum(second[side][j].T @ first[side][i] for side in (0, 1))
        values = second[2][j].T @ first[2][i] + second[3][j] @ first[3][i].T
        best = np.sum(scipy.linalg.orthogonal_procrustes(np.eye(4), values)[0] * values)
        if not rope:
            return best + np.sum(scipy.linalg.orthogonal_procrustes(np.eye(4), cross)[0] * cross)
        angles = np.linspace(0, 2 * np.pi, 20001)
        for plane in (0, 2):
            block = cross[plane : plane + 2, plane : plane + 2]
            turned = np.cos(angles) * np.trace(block) + np.sin(angles) * (block[0, 1] - block[1, 0])
            best += turned.max()
        return best

    gains = [sum(gain(i, order[i]) for i in range(2)) for order in itertools.permutations(range(2))]
    mine = found.gauge.layers[0].heads
    assert list(mine) == list(list(itertools.permutations(range(2)))[int(np.argmax(gains))])
    moved = attention_fold.attention_factors(trees.flatten(found.params), "attention_0")
    reached = sum(np.sum(x * y) for x, y in zip(first, moved, strict=True))
    assert reached == pytest.approx(max(gains), rel=1e-6)


@pytest.mark.extended
def test_the_text_transformer_of_the_house():
    """With padding, in single precision."""
    net = TextTransformer(classes=2, vocabulary=40, width=16, depth=1, heads=2)
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 40, (8, 12))).at[:, 0].set(1)
    params = net.init(jax.random.key(0), tokens)["params"]
    layout = layout_of(params)
    folded = attention_fold.fold(layout, params)
    gauge = attention.random_gauge(jax.random.key(1), layout, params)
    copy = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), attention.transform(layout, folded, gauge))
    np.testing.assert_allclose(*(net.apply({"params": p}, tokens) for p in (params, copy)), atol=1e-4)
    found = match_transformers(layout, params, copy, key=jax.random.key(2))
    assert distance(found.reference, found.params) < 1e-5


def test_refusals():
    _, params, layout = make(1, **NETS["rms"])
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="stream='signed' does not pass a norm='layer'; give identity, permutation,"):
        match_transformers(layout._replace(norm="layer"), params, params, key=key, stream="signed")
    with pytest.raises(ValueError, match="factors='ful' is unknown, did you mean 'full'"):
        match_transformers(layout, params, params, key=key, factors="ful")
    with pytest.raises(ValueError, match="restarts=0 must be >= 1"):
        match_transformers(layout, params, params, key=key, restarts=0)
    with pytest.raises(ValueError, match="differ in structure"):
        match_transformers(layout, params, {**params, "more": np.ones(3)}, key=key)
    with pytest.raises(ValueError, match="a leaf 'attention_0/key/kernel' that the tree lacks"):
        layout_of({**params, "attention_0": {"query": params["attention_0"]["query"]}}, norm="rms")
    with pytest.raises(ValueError, match=r"'more' of shape .* does not end with the stream of width 8"):
        layout_of({**params, "more": np.ones(3)}, norm="rms")
    with pytest.raises(ValueError, match="rope has 3 frequencies for heads of size 4"):
        layout_of(params, norm="rms", rope=(1.0, 0.5, 0.1))
    broken = jax.tree.map(np.array, params)
    broken["norm_0"]["bias"] = np.ones(8)
    with pytest.raises(ValueError, match="norm_0/bias is not zero and attention_0/query has no bias"):
        attention_fold.fold(layout, broken)
    broken["norm_0"]["bias"] = np.full(8, np.nan)
    with pytest.raises(ValueError, match="norm_0/bias"):
        match_transformers(layout, broken, broken, key=key)


def test_trees_of_other_shapes_are_refused_by_the_leaf():
    """Of other heads, units, classes; complex; so large that squares overflow."""
    _, params, layout = make(1, **NETS["rms"])
    key, leaves = jax.random.key(0), trees.flatten(params)

    def changed(name, leaf):
        return trees.nest({**leaves, name: leaf})

    for name, shape in (
        ("attention_0/key/kernel", (8, 3, 4)), ("attention_0/out/kernel", (2, 3, 8)), ("dense_0/kernel", (7, 6)),
        ("dense_1/kernel", (5, 8)), ("norm_1/scale", (7,)),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=rf"leaf '{name}' has shape .* where its neighbours"):
            layout_of(changed(name, np.ones(shape)), norm="rms")
    with pytest.raises(ValueError, match=r"'head/kernel' has shape .*; give the tree of one network"):
        match_transformers(layout, *[trees.stack([params, params])] * 2, key=key)
    with pytest.raises(ValueError, match=r"leaf 'head/kernel' has shape \(8, 3\) in reference, in model \(8, 4\)"):
        match_transformers(layout, params, changed("head/kernel", np.ones((8, 4))), key=key)
    with pytest.raises(ValueError, match="'head/kernel' is complex"):
        match_transformers(layout, params, changed("head/kernel", leaves["head/kernel"] * 1j), key=key)
    with pytest.raises(ValueError, match="squares of the entries overflow"):
        match_transformers(layout, params, jax.tree.map(lambda leaf: 1e150 * leaf, params), key=key)
    with pytest.raises(ValueError, match=r"has shape \(3,\) in a, in b \(1,\)"):
        distance({"x": np.ones(3)}, {"x": np.ones(1)})
    with pytest.raises(ValueError, match="no entry other than 0"):
        distance({"x": np.zeros(3)}, {"x": np.ones(3)})


def test_what_is_no_gauge_is_refused():
    _, params, layout = make(1, **NETS["rms"])
    folded = attention_fold.fold(layout, params)
    gauge = attention.random_gauge(jax.random.key(0), layout, params)
    heads, units = gauge.layers
    for wrong, message in (
        (gauge._replace(stream=np.ones((8, 8))), "stream must be finite and orthogonal"),
        (gauge._replace(stream=np.eye(7)), r"stream has shape \(7, 7\), the network needs \(8, 8\)"),
        (gauge._replace(layers=(heads,)), "the gauge has 1 layers, the layout 2"),
        (gauge._replace(layers=(heads._replace(heads=np.zeros(2, int)), units)), "heads of attention_0 must be"),
        (gauge._replace(layers=(heads._replace(qk=np.zeros((2, 4, 4))), units)), "qk .* finite and invertible"),
        (gauge._replace(layers=(heads, units._replace(scale=np.zeros(6)))), "scale of dense_0 must be"),
    ):
        with pytest.raises(ValueError, match=message):
            attention.transform(layout, folded, wrong)
    for spread in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="spread="):
            attention.random_gauge(jax.random.key(0), layout, params, spread=spread)


def test_a_dead_head_and_a_dead_unit_stay_finite():
    apply, params, layout = make(1, **NETS["rms"])
    params = jax.tree.map(np.array, params)
    params["attention_0"]["query"]["kernel"][:, 0] = 0
    params["dense_0"]["kernel"][:, 0] = 0
    found = match_transformers(layout, params, params, key=jax.random.key(0))
    assert gap(apply(params), apply(found.params)) < 1e-6
    assert attention_matching.distance(found.reference, found.params) < 1e-6
