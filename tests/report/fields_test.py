"""Curves of the terms and maps of the errors against what was planted."""

import numpy as np
import pytest
from matplotlib.colors import LogNorm

from sbjax.report import fields as lib
from sbjax.report import figures
from sbjax.report.results import load_results


@pytest.fixture
def terms(write_member):
    return load_results(write_member("heat"))


def test_a_panel_a_term_with_the_planted_medians(terms):
    assert lib.term_names(terms) == ["train/loss_equation", "train/loss_initial_u", "train/loss_u_on_x"]
    figure = lib.term_curves(terms)
    assert [panel.get_title() for panel in figure.axes] == ["equation", "initial u", "u on x"]
    for panel, name in zip(figure.axes, lib.term_names(terms), strict=True):
        assert panel.get_yscale() == "log"
        assert [line.get_label() for line in panel.lines] == list(terms.arms)
        for line, arm in zip(panel.lines, terms.arms, strict=True):
            # Step 0 has no loss yet.
            np.testing.assert_array_equal(line.get_xdata(), [10, 20, 30])
            expected = [np.median(report.values[name]) for report in terms.reports[arm][1:]]
            np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-12)
    figures.to_png(figure)


@pytest.mark.extended
def test_a_term_that_is_zero_is_no_obstacle(terms):
    for reports in terms.reports.values():
        for report in reports:
            report.values["train/loss_u_on_x"] *= 0.0
    figure = lib.term_curves(terms)
    assert figure.axes[0].get_yscale() == "log"
    figures.to_png(figure)
    for reports in terms.reports.values():
        for report in reports:
            for name in lib.term_names(terms):
                report.values[name] *= 0.0
    figures.to_png(lib.term_curves(terms))


def test_the_replica_with_the_median_error_is_drawn(write_member):
    # Errors of the seeds in raw: 3, 1, stopped, 2, 5 and 4 times their spread.
    spread = 10 ** (0.3 * np.random.default_rng(2).normal(size=6))
    order = np.array([3, 1, np.nan, 2, 5, 4]) / spread
    results = load_results(write_member("heat", factors={"raw": order, "expanded": order * np.nan}))
    assert lib.median_replica(results, "raw") == 0
    assert lib.median_replica(results, "expanded") is None
    even = load_results(write_member("even", factors={"raw": np.array([3, 1, 6, 2, 5, 4]) / spread}))
    assert lib.median_replica(even, "raw") == 0


def test_maps_show_the_error_of_that_replica_on_one_scale(write_member):
    workdir = write_member("heat", shape=(9, 7))
    results = load_results(workdir)
    fields = lib.load_fields(results, workdir)
    assert list(fields) == list(results.arms)
    figure = lib.solution_maps(results, fields)
    images = {panel.get_title(): panel.images[0] for panel in figure.axes if panel.images}
    errors = [f"{arm}, error" for arm in results.arms]
    assert list(images) == ["u, reference", *results.arms, *errors]
    x, t = np.linspace(-1, 1, 9), np.linspace(-1, 1, 7)
    np.testing.assert_allclose(images["u, reference"].get_array(), np.sin(np.pi * x)[:, None] * np.exp(-t)[None])
    for i, arm in enumerate(results.arms):
        replica = lib.median_replica(results, arm)
        planted = 10.0 ** -(i + 1) * (replica + 1) * np.cos(np.pi * x)[:, None] * np.ones(7)
        np.testing.assert_allclose(images[f"{arm}, error"].get_array(), np.abs(planted), atol=1e-12)
        solution = images["u, reference"].get_array() + planted
        np.testing.assert_allclose(images[arm].get_array(), solution, atol=1e-12)
        # Time to the right, from the first point less half a pixel to the last and half a pixel.
        np.testing.assert_allclose(images[arm].get_extent(), [-7 / 6, 7 / 6, -9 / 8, 9 / 8])
    norms = {images[name].norm for name in errors}
    assert len(norms) == 1
    assert isinstance(norms.pop(), LogNorm)
    # Solutions are told apart by the reference's own scale, whatever an arm predicts.
    (norm,) = {images[name].norm for name in ("u, reference", *results.arms)}
    reference = images["u, reference"].get_array()
    assert (norm.vmin, norm.vmax) == (reference.min(), reference.max())
    assert {panel.get_xlabel() for panel in figure.axes if panel.images} == {"t", ""}
    figures.to_png(figure)


def test_similar_errors_have_a_linear_scale(write_member):
    workdir = write_member("heat", factors={"raw": 1.0}, shape=(9, 7))
    results = load_results(workdir)
    figure = lib.solution_maps(results, lib.load_fields(results, workdir))
    norm = next(panel.images[0].norm for panel in figure.axes if panel.get_title() == "raw, error")
    assert not isinstance(norm, LogNorm)
    assert norm.vmin == 0


def test_several_unknowns_have_two_rows_each(write_member):
    workdir = write_member("kovasznay", factors={"raw": 1.0, "expanded": 0.1}, shape=(9, 7), unknowns="uvp")
    results = load_results(workdir)
    figure = lib.solution_maps(results, lib.load_fields(results, workdir))
    titles = [panel.get_title() for panel in figure.axes if panel.images]
    shown = ("reference", "raw", "expanded", "raw, error", "expanded, error")
    assert titles == [f"{u}, {name}" for u in "uvp" for name in shown]


def test_one_coordinate_has_lines_and_their_errors(write_member):
    workdir = write_member("poisson", equation="poisson", shape=(401,))
    results = load_results(workdir)
    above, below = lib.solution_maps(results, lib.load_fields(results, workdir)).axes
    assert [line.get_label() for line in above.lines] == ["reference", *results.arms]
    assert (above.get_yscale(), below.get_yscale(), below.get_xlabel()) == ("linear", "log", "x")
    for i, arm in enumerate(results.arms):
        heights = below.lines[i].get_ydata()
        assert max(heights) == pytest.approx(10.0 ** -(i + 1) * (lib.median_replica(results, arm) + 1))


@pytest.mark.sampled(1)
@pytest.mark.parametrize("shape", [(11,), (5, 5)])
def test_exact_and_undefined_predictions_are_drawn(write_member, shape):
    workdir = write_member("heat", factors={"raw": 1.0, "expanded": 1.0}, shape=shape)
    results = load_results(workdir)
    fields = lib.load_fields(results, workdir)
    exact = {arm: field._replace(predicted=field.reference) for arm, field in fields.items()}
    figures.to_png(lib.solution_maps(results, exact))
    lost = fields["raw"]._replace(predicted=fields["raw"].predicted * np.nan)
    figures.to_png(lib.solution_maps(results, fields | {"raw": lost}))
    figures.to_png(lib.solution_maps(results, {"raw": lost}))


def test_arms_without_a_grid_are_left_out(write_member):
    workdir = write_member("heat", factors={"raw": 1.0, "expanded": np.nan, "ones": 1.0}, shape=(5, 5))
    (workdir / "grids" / "ones.npz").unlink()
    results = load_results(workdir)
    assert list(lib.load_fields(results, workdir)) == ["raw"]
    with pytest.raises(ValueError, match="no arm has a grid"):
        lib.solution_maps(results, {})


@pytest.mark.extended
@pytest.mark.parametrize("shape", [(5, 4, 3), (5, 4, 1, 3)])
def test_more_coordinates_are_drawn_in_slices(write_member, shape):
    """One picture a value of the last coordinate, named in its caption, with the planted values there."""
    workdir = write_member("deep", factors={"raw": 1.0, "expanded": 0.1}, shape=shape)
    results = load_results(workdir)
    drawn = lib.draw_solutions(results, workdir)
    assert [figure.name for figure in drawn] == [f"solution_maps_{i}" for i in range(3)]
    middle = "v = -1, " if len(shape) == 4 else ""
    assert [figure.caption.split(". ")[0] for figure in drawn] == [f"At {middle}t = {t}" for t in (-1, 0, 1)]
    whole = lib.load_fields(results, workdir)
    parts = lib.slices(whole)
    for i, (_, fields) in enumerate(parts):
        field = fields["expanded"]
        assert (field.coordinates, field.points.shape, field.predicted.shape) == (("x", "y"), (5, 4, 2), (5, 4, 1))
        np.testing.assert_array_equal(field.predicted, whole["expanded"].predicted.reshape(5, 4, 3, 1)[:, :, i])
        np.testing.assert_array_equal(field.points[:, 0, 0], np.linspace(-1, 1, 5))


@pytest.mark.extended
def test_a_slice_in_which_the_solution_is_zero_is_drawn(write_member):
    workdir = write_member("deep", factors={"raw": 1.0}, shape=(5, 4, 3))
    path = workdir / "grids" / "raw.npz"
    with np.load(path) as file:
        arrays = dict(file)
    for name in ("reference", "predicted"):
        arrays[name][..., 0, :] = 0.0
    np.savez(path, **arrays)
    assert len(lib.draw_solutions(load_results(workdir), workdir)) == 3


@pytest.mark.parametrize("content", [b"", b"not a zip"])
def test_a_broken_grid_is_named(write_member, content):
    workdir = write_member("heat", shape=(5, 5))
    (workdir / "grids" / "ones.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"ones\.npz cannot be used"):
        lib.load_fields(load_results(workdir), workdir)


def test_errors_have_a_logarithmic_axis(terms):
    assert figures.accuracy_curves(terms).axes[0].get_yscale() == "log"
    assert figures.paired_dots(terms).axes[0].get_yscale() == "log"


def test_files_with_captions_and_the_same_bytes(write_member):
    drawn = []
    for name in ("one", "two"):
        workdir = write_member(name, shape=(9, 7))
        results = load_results(workdir)
        drawn.append([*lib.draw_terms(results, workdir), *lib.draw_solutions(results, workdir)])
        for figure in drawn[-1]:
            assert (workdir / "figures" / f"{figure.name}.png").read_bytes() == figure.png
    assert drawn[0] == drawn[1]
    assert [figure.name for figure in drawn[0]] == ["term_curves", "solution_maps"]
    assert "Terms of the training loss without weights" in drawn[0][0].caption
    assert "of the replica with the median test/l2" in drawn[0][1].caption


def test_runs_without_terms_or_grids_have_neither(write_run):
    workdir = write_run()
    results = load_results(workdir)
    assert lib.draw_terms(results, workdir) == lib.draw_solutions(results, workdir) == []
    with pytest.raises(ValueError, match="train/loss_<term>; nothing to draw"):
        lib.term_curves(results)
