# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The loss landscape of an expanded network
#
# A teacher of $r$ neurons, a student of $m > r$: where are its global minima, how are they connected, and which
# critical points come from narrower networks? From $(r, m) = (1, 2)$, which fits into one picture, to $(2, 3)$, after
# Simsek et al., [arXiv 2105.12221](https://arxiv.org/abs/2105.12221). Runs in under a minute on a CPU.

# %%
import importlib.util
import pathlib
import subprocess
import sys

if (
    importlib.util.find_spec("sbjax") is None
):  # in Colab: upload a wheel, or the folder of the sources, beside this page
    found = [*pathlib.Path().glob("sbjax-*.whl"), *(file.parent for file in pathlib.Path().glob("*/setup.cfg"))]
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", str(found[0].resolve())], check=True)

# %%
import collections

import jax
import matplotlib.pyplot as plt
import numpy as np
import scipy
from IPython.display import Image, display

from sbjax.experiments.landscape import figures as landscape_figures
from sbjax.landscape import (
    canonical,
    classification,
    counting,
    critical_points,
    manifold,
    paths,
    splitting,
    teacher_student,
)
from sbjax.optimizers.polish import polish
from sbjax.report import figures

jax.config.update("jax_enable_x64", True)  # zero is told from small by many orders of magnitude
key = jax.random.key(0)
g = teacher_student.generic  # sigmoid(4 z) + softplus(z), which has no symmetry of its own

# %% [markdown]
# ## 1. One neuron learned by two
#
# $f(x) = a_1 g(w_1 x) + a_2 g(w_2 x)$ equals $a\, g(w x)$ in three ways: both neurons copy the one ($w_1 = w_2 = w$
# and $a_1 + a_2 = a$), or one copies it and the other has outgoing weight 0 and any incoming weight. Each is a straight
# line, and since $a_1 + a_2 = a$ on all three, they fit into the space of $(w_1, w_2, a_1)$. The first meets both
# others, which are mirror images: a chain that leads from a minimum to its permutation.

# %%
w, a = 1.0, 2.0
start = {"w": np.array([[w], [-0.5]]), "a": np.array([[a], [0.0]])}
path = paths.permutation_path(start, [[1, 0]])
for segment in path:
    print(f"{segment.move:9} w = {segment.end['w'].ravel()}, a = {segment.end['a'].ravel()}")
end = path[-1].end
assert paths.same(end, paths.permuted(start, [[1, 0]]))

# %%
x = np.linspace(-2, 2, 41)[:, None]
y = teacher_student.two_layer({"w": np.array([[w]]), "a": np.array([[a]])}, x, "g")
along = paths.path_losses(path, x, y, g)
straight = paths.straight_losses(start, end, x, y, g, points=63)
assert along.max() < 1e-25

figure = plt.figure(figsize=(9, 3.6), layout="constrained")
panel = figure.add_subplot(1, 2, 1, projection="3d")
for segment, colour, name in zip(path, ("C0", "C2", "C0"), ("$a_2 = 0$", "$w_1 = w_2$", "$a_1 = 0$")):
    ends = np.array([[*p["w"].ravel(), p["a"][0, 0]] for p in (segment.start, segment.end)])
    panel.plot(*ends.T, "o-", color=colour, label=name)
panel.plot(
    *np.array([[*p["w"].ravel(), p["a"][0, 0]] for p in (start, end)]).T, ":", color="grey", label="straight line"
)
panel.set(xlabel="$w_1$", ylabel="$w_2$", zlabel="$a_1$", title="three lines of global minima")
panel.legend(fontsize="small")
panel = figure.add_subplot(1, 2, 2)
panel.semilogy(np.linspace(0, 1, along.size), np.maximum(along.ravel(), 1e-34), "C2", label="along the chain")
panel.semilogy(np.linspace(0, 1, straight.size), np.maximum(straight, 1e-34), ":", color="grey", label="straight line")
panel.set(xlabel="share of the way", ylabel="loss")
panel.legend(fontsize="small")
plt.show()
print(f"largest loss along the chain {along.max():.1e}, on the straight line {straight.max():.2f}")

# %% [markdown]
# ## 2. Counting the pieces
#
# In general the global minima are a union of $T(r, m)$ affine pieces, and every critical point of a narrower network of
# $s$ neurons gives $G(s, m)$ pieces of critical points. With one neuron to spare, $m = r + 1$, the $r!$ isolated minima
# of $m = r$ have become one connected set.

# %%
for r, m in [(1, 2), (2, 2), (2, 3), (3, 4), (4, 45)]:
    print(f"r = {r}, m = {m:2}: T = {counting.T(r, m):.6g}, G(r, m) = {counting.G(r, m):.6g}")


def show(drawn):
    display(Image(figures.to_png(drawn)))


show(landscape_figures.intersection_graphs([(1, 2), (2, 2), (2, 3)]))

# %% [markdown]
# Saddles are many in mildly expanded networks; minima win soon after, and by far.

# %%
show(landscape_figures.counts_figure({"r = 10": counting.counts(10, 40)}))
print(f"T(10, m) is ahead from m = {counting.crossing(10)} on")

# %% [markdown]
# ## 3. Two neurons learned by three
#
# A random point on each of the 12 pieces: the loss is 0 everywhere, and the number of flat directions of the Hessian
# is the one that theory predicts. It can exceed the dimension of the piece, for some directions are flat to second
# order only.

# %%
teacher = {"w": np.array([[0.6, 0.5], [-0.5, 0.5]]), "a": np.ones((2, 1))}
x = teacher_student.grid_inputs(9, 3.0)
y = teacher_student.two_layer(teacher, x, "g")
print("piece  dimension     loss  nullity, predicted and measured")
for i, piece in enumerate(manifold.pieces(2, 3)):
    point = manifold.sample(jax.random.fold_in(key, i), piece, teacher)
    found = critical_points.certified_minimum(point, x, y, g)
    dimension = manifold.dimension(manifold.signature(piece), 2)
    name = landscape_figures.name_piece(piece)
    print(f"{name:5} {dimension:10} {found.loss:8.0e} {found.nullity_predicted:7} {found.nullity_measured:9}")
    assert found.loss < 1e-25
    assert found.nullity_predicted == found.nullity_measured

# %% [markdown]
# ## 4. Splitting a critical point
#
# One neuron cannot learn two. Its minimum, at a positive loss, becomes a line of critical points of two neurons: copies
# with $a_1 = \mu a$, $a_2 = (1 - \mu) a$. Which of them are saddles follows from a matrix of the narrow network alone.
# Here it is negative definite: between 0 and 1 all are strict saddles, outside none is and the line is a plateau.


# %%
def derivatives(flat):
    return critical_points.derivatives({"a": flat[:1, None], "w": flat[None, 1:]}, x, y, g)


flat = scipy.optimize.minimize(
    lambda p: derivatives(p).loss,
    np.array([1.0, 0.1, 0.5]),
    jac=lambda p: derivatives(p).gradient,
    hess=lambda p: derivatives(p).hessian,
    method="trust-exact",
    options={"gtol": 1e-9},
).x
for _ in range(3):  # Newton, to round-off
    here = derivatives(flat)
    flat = flat - np.linalg.solve(here.hessian, here.gradient)
narrow = {"w": flat[None, 1:], "a": flat[:1, None]}
print(f"loss {here.loss:.6f}, gradient {np.abs(here.gradient).max():.0e}, incoming vector {flat[1:]}")

inner = splitting.inner_matrices(narrow, x, y, g)
print(f"eigenvalues of the inner matrix: {np.linalg.eigvalsh(inner.curvature[0])}")
both = manifold.Piece(((0, 1),), ())
print("           mu  gradient  inertia (negative, zero, positive), predicted and measured")
for mu in [(0.5, 0.5), (0.9, 0.1), (1.0, 0.0), (1.5, -0.5), (-2.0, 3.0)]:
    _, found = critical_points.certified_split(narrow, both, [mu], x, y, g)
    print(f"{mu!s:>13} {found.gradient:9.0e}  {tuple(found.predicted)!s:14} {tuple(found.measured)}")
    assert found.holds()

# %%
mus = np.linspace(-0.75, 1.75, 101)
spectra = [
    np.linalg.eigvalsh(critical_points.derivatives(splitting.split(narrow, 0, (mu, 1 - mu)), x, y, g).hessian)
    for mu in mus
]
figure, panel = plt.subplots(figsize=(5, 3), layout="constrained")
panel.plot(mus, np.array(spectra), "C0", linewidth=1)
panel.axhline(0, color="grey", linewidth=0.7)
panel.set_yscale("symlog", linthresh=1e-4)
panel.set(xlabel=r"$\mu$", ylabel="eigenvalues of the Hessian", title="along a line of critical points")
plt.show()

# %% [markdown]
# ## 5. What trained students found
#
# Students of three neurons, each from its own initial weights, are trained until the gradient vanishes to round-off.
# The classifier then merges neurons that coincide and says what kind of point it is.

# %%
residuals = teacher_student.student_residuals(lambda p, x: teacher_student.two_layer(p, x, "g"), x, y)
train = jax.jit(jax.vmap(lambda p: polish(residuals, p, steps=400, newton_steps=100)))
students = train(teacher_student.init_students(key, 24, 3))
trained = [jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), students.params) for i in range(24)]
found = [classification.classify(student, x, y, g, teacher=teacher) for student in trained]
for kind, count in collections.Counter(point.kind for point in found).most_common():
    example = next(point for point in found if point.kind == kind)
    print(f"{count:2} {kind}: for example {example.reason}")

# %% [markdown]
# All students at zero loss, found independently of each other, lie on one connected set. Here is a way from one to
# another along which the function stays the same, and the straight line between them. (Where neurons cancel but for
# round-off, the rest is taken off first.)


# %%
def without_rest(student, point):
    outgoing = student["a"].copy()
    for group in point.piece.zeros:
        outgoing[list(group)] -= outgoing[list(group)].mean(0)
    return {**student, "a": outgoing}


pairs = [pair for pair in zip(trained, found) if pair[1].kind == classification.GLOBAL_MINIMA]
one, other = (without_rest(*pair) for pair in pairs[:2])
print(f"groups {tuple(pairs[0][1].signature)} and {tuple(pairs[1][1].signature)}")
path = canonical.connect(one, other, tolerance=1e-5)
along = paths.path_losses(path, x, y, g)
straight = paths.straight_losses(one, other, x, y, g, points=101)
show(landscape_figures.path_losses({f"path of {len(path)} segments": along, "straight line": straight}))
print(f"largest loss along the path {along.max():.1e}, on the straight line {straight.max():.2g}")
assert along.max() < 1e-9 * straight.max()
