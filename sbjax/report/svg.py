"""A drawing with several panels as one SVG image a panel, so that a page can lay them side by side or in one column.

Texts stay texts, colours follow the page (`currentColor` and the variables `--c0`, `--c1`, .. of its style), and what
is seen in a panel is said in words. The same drawing gives the same bytes.
"""

import io
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from sbjax.report.sections import Entry, Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with every common colour blindness; dashes tell them apart in grey as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

WIDTH = 3.4
"""Inches of a panel: 8 points are 10 pixels where it is 306 pixels wide."""
LEAST = 8.0
"""Points of the smallest text."""

_HEIGHTS = (2.3, 7.0)
_OPTIONS = {"svg.fonttype": "none", "svg.hashsalt": "sbjax", "image.composite_image": True}
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def even_ticks(figure: "Figure") -> None:
    """Few plain numbers on logarithmic axes that span less than a decade: matplotlib writes all of 2, 3, .. 9 there."""
    from matplotlib.ticker import MaxNLocator, NullLocator, ScalarFormatter

    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            if axis.get_scale() == "log" and low > 0 and high < 10 * low:
                axis.set_major_locator(MaxNLocator(4))
                axis.set_major_formatter(ScalarFormatter())
                axis.set_minor_locator(NullLocator())


def plain_text(figure: "Figure") -> None:
    """Show text that is no formula as it is: an arm of a foreign folder may be called '$x'."""
    from matplotlib.mathtext import MathTextParser
    from matplotlib.text import Text

    parser = MathTextParser("agg")
    for text in figure.findobj(Text):
        if "$" in text.get_text() and text.get_parse_math():
            try:
                parser.parse(text.get_text())
            except ValueError:
                text.set_parse_math(False)


def split(figure: "Figure", name: str) -> tuple[tuple[Panel, ...], tuple[Entry, ...]]:
    """The panels of a drawing, row by row, and the entries of its legend. The drawing is used up.

    Each panel gets the labels of its row and column and the colour bar that belongs to it. What a panel shows is the
    label of its axes (`panel.set_label`), or else made from what is drawn, see `seen`.

    Args:
        figure: a constrained layout of subplots.
        name: begins the ids within the images; of several drawings on a page each needs its own.
    """
    import matplotlib
    from matplotlib.gridspec import GridSpec

    entries = tuple(entry for legend in figure.legends for entry in _entries(legend))
    for legend in list(figure.legends):
        legend.remove()
    bars = [_bar(axes) for axes in figure.axes if hasattr(axes, "_colorbar")]
    for bar in bars:
        bar["bar"].remove()
    panels = [axes for axes in figure.axes if axes.get_visible() and (axes.has_data() or axes.texts)]
    sizes = {panel: _height(figure, panel) for panel in panels}
    for panel in panels:
        _label_like_its_row(panel, panels)
    figure.patch.set_visible(False)
    for axes in figure.axes:
        axes.patch.set_visible(False)
        axes.set_visible(False)
        axes.set_in_layout(False)
    found = []
    with matplotlib.rc_context(_OPTIONS):
        for number, panel in enumerate(panels):
            panel.set_visible(True)
            panel.set_in_layout(True)
            panel.set_subplotspec(GridSpec(1, 1, figure=figure)[0])
            figure.set_size_inches(WIDTH, sizes[panel])
            own = [figure.colorbar(b["mappable"], ax=panel, **b["options"]) for b in bars if _belongs(b, panel)]
            plain_text(figure)
            _make_legible(figure)
            text = seen(panel)
            stream = io.StringIO()
            figure.savefig(stream, format="svg", dpi=150, metadata=_NO_METADATA)
            found.append(Panel(_inline(stream.getvalue(), f"{name}-{number}"), text))
            for bar in own:
                bar.remove()
            panel.set_visible(False)
            panel.set_in_layout(False)
    return tuple(found), entries


def seen(panel: "Axes") -> str:
    """What a panel shows, in words: the label of the axes, or else where its lines begin and end, or its values."""
    if panel.get_label():
        return str(panel.get_label())
    title, x, y = (_words(text) for text in (panel.get_title(), panel.get_xlabel(), panel.get_ylabel()))
    what = " against ".join(filter(None, (y, x)))
    start = ", ".join(filter(None, (title, what))) or "drawing"
    lines = [(line.get_label(), np.asarray(line.get_ydata(), float)) for line in panel.lines]
    lines = [(name, heights[np.isfinite(heights)]) for name, heights in lines if not str(name).startswith("_")]
    lines = [(name, heights) for name, heights in lines if heights.size]
    if lines and max(heights.size for _, heights in lines) > 1:
        said = [f"{name} from {heights[0]:.3g} to {heights[-1]:.3g}" for name, heights in lines]
        order = sorted(lines, key=lambda line: line[1][-1])
        ends = f"; at the right end {order[0][0]} is lowest, {order[-1][0]} highest" if len(lines) > 1 else ""
        return f"{start}: {', '.join(said)}{ends}."
    if panel.images:
        values = np.ma.masked_invalid(panel.images[0].get_array()).compressed()
        span = f", values from {values.min():.3g} to {values.max():.3g}" if values.size else ", no finite value"
        return f"{start}: map{span}."
    names = list(dict.fromkeys(str(name) for name, _ in lines))
    ticks = [_words(tick.get_text()) for tick in panel.get_xticklabels()]
    ticks = [tick for tick in ticks if tick and not re.fullmatch("[-\u2212+.\\de]+", tick)]
    return f"{start}{': ' if names or ticks else ''}{', '.join(names or ticks)}."


def _words(text: str) -> str:
    """A label without the signs of mathematical text."""
    return re.sub(r"[$\\{}]|\\mathdefault", "", text).strip()


def _entries(legend: Any) -> list[Entry]:
    from matplotlib.colors import to_hex

    found = []
    for handle, text in zip(legend.legend_handles, legend.get_texts()):
        colour = handle.get_color() if hasattr(handle, "get_color") else handle.get_facecolor()
        colour = to_hex(np.atleast_2d(colour)[0] if not isinstance(colour, str) else colour)
        dash = handle.get_linestyle() if hasattr(handle, "get_marker") else "-"
        marker = str(handle.get_marker()) if hasattr(handle, "get_marker") else ""
        dash = dash if isinstance(dash, str) else "-"
        empty = ("None", "none", " ", "")
        found.append(Entry(text.get_text(), colour, "" if dash in empty else dash, "" if marker in empty else marker))
    return found


def _bar(axes: "Axes") -> dict[str, Any]:
    """What makes a colour bar anew."""
    bar = axes._colorbar
    label = axes.get_ylabel() or axes.get_xlabel()
    return {
        "bar": bar,
        "mappable": bar.mappable,
        "parents": list(axes._colorbar_info["parents"]),
        "options": {"label": label, "extend": bar.extend},
    }


def _belongs(bar: dict[str, Any], panel: "Axes") -> bool:
    """Whether a bar stands beside a panel, and is of its colours if the panel is a map."""
    return panel in bar["parents"] and (not panel.images or _scale(panel.images[0]) == _scale(bar["mappable"]))


def _scale(mappable: Any) -> tuple[Any, ...]:
    return mappable.cmap.name, type(mappable.norm), mappable.norm.vmin, mappable.norm.vmax


def _height(figure: "Figure", panel: "Axes") -> float:
    spec = panel.get_subplotspec()
    rows = spec.get_gridspec().nrows / len(spec.rowspan) if spec else 1
    return float(np.clip(figure.get_figheight() / rows, *_HEIGHTS))


def _label_like_its_row(panel: "Axes", panels: list["Axes"]) -> None:
    """Labels that only the first of a row, or the last of a column, has on the whole drawing."""
    spec = panel.get_subplotspec()
    for other in panels if spec else ():
        of = other.get_subplotspec()
        if other is panel or of is None or of.get_gridspec() is not spec.get_gridspec():
            continue
        if of.rowspan == spec.rowspan and not panel.get_ylabel() and other.get_ylim() == panel.get_ylim():
            panel.set_ylabel(other.get_ylabel())
        if of.colspan == spec.colspan and not panel.get_xlabel() and other.get_xlim() == panel.get_xlim():
            panel.set_xlabel(other.get_xlabel())
    panel.tick_params(labelleft=True, labelbottom=True)


def _make_legible(figure: "Figure") -> None:
    """No text below `LEAST` points, exponents included."""
    from matplotlib.ticker import Formatter

    class Plain(Formatter):
        """Powers of ten as '1e-5' instead of a small exponent."""

        def __init__(self, inner):
            self.inner = inner

        def __call__(self, x, pos=None):
            said = self.inner(x, pos)
            return re.sub(r"e([+-])0*", lambda m: f"e{m[1].strip('+')}", f"{x:g}") if "$" in said else said

        def set_axis(self, axis):
            super().set_axis(axis)
            self.inner.set_axis(axis)

        def set_locs(self, locs):
            self.inner.set_locs(locs)

    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if axis.get_scale() == "linear":
                continue
            for get, put in (
                (axis.get_major_formatter, axis.set_major_formatter),
                (axis.get_minor_formatter, axis.set_minor_formatter),
            ):
                if not isinstance(get(), Plain) and type(get()).__name__ != "NullFormatter":
                    put(Plain(get()))
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        # A script of mathematical text is 0.7 times as large.
        least = LEAST / 0.7 if "$" in text.get_text() else LEAST
        text.set_fontsize(max(least, text.get_fontsize()))
    for axes in figure.axes:
        axes.tick_params(which="both", labelsize=LEAST)


def _inline(svg: str, name: str) -> str:
    """An SVG file as part of a page."""
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\s*<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)
    box = re.search(r'viewBox="[^"]*"', svg)[0]
    svg = re.sub(r"^<svg[^>]*>", f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {box}>', svg)
    svg = re.sub(r"\s*<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="([^"]*)"', rf' id="{name}-\1"', svg)
    svg = re.sub(r'((?:xlink:)?href="#|url\(#)', rf"\g<1>{name}-", svg)
    for number, colour in enumerate(COLOURS):
        svg = svg.replace(colour.lower(), "currentColor" if colour == "#000000" else f"var(--c{number})")
    # The font of the page.
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = re.sub(r"(font: [^'\";]*)'[^\";]*", r"\1sans-serif", svg)
    # Coordinates to a hundredth of a point.
    svg = re.sub(r'\bd="([^"]*)"', lambda m: f'd="{_rounded(m[1])}"', svg, flags=re.DOTALL)
    svg = re.sub(r'\b(x|y)="(-?\d+\.\d{3,})"', lambda m: f'{m[1]}="{float(m[2]):.2f}"', svg)
    return re.sub(r"\n\s*", "\n", svg)


def _rounded(path: str) -> str:
    return re.sub(r"-?\d+\.\d{3,}", lambda m: f"{float(m[0]):.2f}", path).replace("\n", "").strip()
