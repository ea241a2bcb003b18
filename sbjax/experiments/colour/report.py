"""What the report of colourisation adds: predictions without a network beside those of the arms, and pictures."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import ArrayLike, Float, UInt8

from sbjax.common.files import FileError, read_arrays, read_json, write_atomically
from sbjax.report import statistics, tables
from sbjax.report.figures import new_figure, picture, styled
from sbjax.report.results import Results
from sbjax.report.sections import Figure, Note, Section, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

BASELINES = "baselines.json"
FOLDER = "colours"
PICTURES = 8
"""Test images of which pictures are kept: the first ones."""

# As `sbjax.tasks.colour.METRICS`, with the heads of their columns.
COLUMNS = {
    "ab_rmse": "ab RMSE",
    "psnr_pooled": "PSNR, pooled (dB)",
    "psnr_mean": "PSNR, mean (dB)",
    "ssim": "SSIM",
    "colourfulness": "colourfulness",
}
_NOTE = (
    "On the test images at the last report; of networks the median over replicas. ab RMSE is over all pixels and both "
    "coordinates; the pooled PSNR is that of the mean squared error of all pixels, the mean PSNR the mean over images, "
    "in which an image that is predicted exactly counts as 100 dB. Grey does well by the latter, because a "
    "wrong colour costs more than none: read it beside the ab RMSE and the colourfulness, which is {truth} of the true "
    "images. 'mean ab' is the mean colour of the training pixels, 'mean ab given L' their mean at the lightness of the "
    "pixel, in steps of 5."
)
_CAPTION = (
    "The first {count} test images: what the networks see, the truth, and what the first replica of each arm makes of "
    "it at the last step, with the true lightness."
)
_FORM = {str: {str: (float, None)}}


def save_pictures(
    workdir: Path, arm: str, truth: UInt8[ArrayLike, "n h w 3"], predicted: Float[ArrayLike, "n h w 3"]
) -> None:
    """Write `colours/<arm>.npz`: true images and an arm's, as uint8."""
    content = io.BytesIO()
    made = np.round(255 * np.nan_to_num(np.asarray(predicted))).astype(np.uint8)
    np.savez_compressed(content, truth=np.asarray(truth), predicted=made)
    (workdir / FOLDER).mkdir(exist_ok=True)
    write_atomically(workdir / FOLDER / f"{arm}.npz", content.getvalue())


def load_pictures(workdir: Path, arm: str) -> dict[str, UInt8[np.ndarray, "n h w 3"]] | None:
    """`truth` and `predicted` of an arm; None where there is no file.

    Raises:
        FileError: the file is damaged.
    """
    path = workdir / FOLDER / f"{arm}.npz"
    if not path.exists():
        return None
    found = read_arrays(path, ["truth", "predicted"])
    shapes = {array.shape for array in found.values()}
    if len(shapes) > 1 or len(shape := shapes.pop()) != 4 or shape[-1] != 3 or not shape[0]:
        raise FileError(f"{path} holds no images beside their truth; start the run again with the same command")
    return found


def report(results: Results, workdir: Path) -> list[Section]:
    """A table, and a figure of pictures where there are some."""
    path = workdir / BASELINES
    found = read_json(path, _FORM) if path.exists() else {}
    parts: list[Any] = [_table(results, found), *_note(found)]
    pictures = {arm: one for arm in results.arms if (one := load_pictures(workdir, arm)) is not None}
    if pictures:
        parts.append(_figure(workdir, pictures))
    return [Section("Beside predictions without a network", parts)]


def _table(results: Results, found: Mapping[str, Mapping[str, float | None]]) -> Table:
    rows = [[name, *(_shown(numbers.get(metric)) for metric in COLUMNS)] for name, numbers in found.items()]
    rows = [row for row in rows if row[0] != "truth"]
    for arm in results.arms:
        values = results.reports[arm][-1].values if results.reports[arm] else {}
        medians = [
            statistics.describe(values[f"test/{metric}"]).median if f"test/{metric}" in values else None
            for metric in COLUMNS
        ]
        rows.append([arm, *map(_shown, medians)])
    return Table(["prediction", *COLUMNS.values()], rows)


def _note(found: Mapping[str, Mapping[str, float | None]]) -> list[Note]:
    truth = found.get("truth", {}).get("colourfulness")
    return [Note(_NOTE.format(truth=_shown(truth)))] if found else []


def _shown(value: float | None) -> str:
    if value is None or not np.isfinite(value):
        return tables.NONE
    return f"{value:.4g}" if abs(value) >= 1e-3 else "0"  # round-off of CIELAB in single precision


def _figure(workdir: Path, pictures: Mapping[str, Mapping[str, UInt8[np.ndarray, "n h w 3"]]]) -> Figure:
    count = len(next(iter(pictures.values()))["truth"])
    alt = f"Rows of {count} small pictures: grey, true colours, and the colours that {', '.join(pictures)} give."
    return picture(workdir, "colours", draw(pictures), _CAPTION.format(count=count), alt=alt)


def draw(pictures: Mapping[str, Mapping[str, UInt8[np.ndarray, "n h w 3"]]]) -> "Drawing":
    """A row of pictures for the input, the truth and each arm."""
    from sbjax.data.colour_space import lab_to_srgb, srgb_to_lab

    truth = next(iter(pictures.values()))["truth"]
    lab = srgb_to_lab(truth / 255)
    lab[..., 1:] = 0
    rows = {"input": np.clip(lab_to_srgb(lab), 0, 1), "truth": truth / 255}
    rows |= {arm: one["predicted"] / 255 for arm, one in pictures.items()}
    with styled():
        figure = new_figure((0.85 * len(truth), 1.1 * len(rows)))
        panels = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
        for panel, (name, images) in zip(panels, rows.items()):
            panel.imshow(_strip(images), interpolation="nearest")
            panel.set_title(name, fontsize=8, loc="left")
            panel.set_axis_off()
            panel.set_label(f"{name}: {len(images)} pictures in a row.")
    return figure


def _strip(images: Float[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "h wide 3"]:
    """Images side by side, a white line between them."""
    gap = max(1, images.shape[2] // 16)
    framed = np.pad(images, ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=1.0)
    return np.concatenate(list(framed), axis=1)[:, :-gap]
