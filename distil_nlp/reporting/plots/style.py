"""Style and rendering of plots: a PNG on white, and an inline SVG that takes its colours from the page.

A figure is drawn once, in the light colours. In the SVG each of them becomes a variable of the page's style sheet, so
that the same drawing is legible on light and dark.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distil_nlp.utils.names import path_name

INK, MUTED, GRID = "#1f2328", "#656d78", "#e1e4e8"
SERIES = ("#1f6fb2", "#c2570c", "#1a7f64", "#8250a8", "#b3384f", "#7a6a10")
"""Colours of lines, distinct to the colour-blind, on white and (as the style sheet has them) on black. The first is
the student's, the second the teacher's."""
STUDENT_COLOUR, TEACHER_COLOUR = SERIES[:2]
HEAT, ON_HEAT = "#2166ac", "#ffffff"
"""The colour of a matrix cell, stronger for higher values, and of text on a strong cell; equal on light and dark."""

_VARIABLES = {INK: "currentColor", MUTED: "var(--muted)", GRID: "var(--grid)"}
_VARIABLES |= {colour: f"var(--series-{i})" for i, colour in enumerate(SERIES)}
_POINTS = 72
WIDTH = 400
"""Default width of a plot, in units in which text is about 10 high."""

_STYLE = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "lines.linewidth": 1.6,
    "text.parse_math": False,  # a label with dollar signs is a label
    "svg.fonttype": "none",
    "figure.constrained_layout.use": True,
}


@dataclass(frozen=True)
class Picture:
    """A finished plot.

    Attributes:
        name: the file's name without its ending.
        description: the plot in words, for those who cannot see it.
        note: the caption.
        width: in units of the SVG.
    """

    name: str
    title: str
    description: str
    note: str
    width: int
    svg: str
    png: bytes

    @property
    def file(self) -> str:
        """Name of the PNG."""
        return f"{path_name(self.name)}.png"


@contextmanager
def style() -> Iterator[None]:
    """Set the style of all plots; the caller's own settings are restored."""
    with matplotlib.style.context(["default", _STYLE]):
        yield


def canvas(title: str, height: float, width: float = WIDTH) -> Figure:
    """Return an empty figure with its title, of a size in the SVG's units."""
    figure = Figure(figsize=(width / _POINTS, height / _POINTS))
    figure.suptitle(title, x=0, ha="left", fontsize=11.5, fontweight="bold")
    return figure


def shorten(text: str, length: int) -> str:
    """Return the text, or its beginning and an ellipsis."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def bare(axes: Axes) -> None:
    """Remove frame, tick marks and grid, for matrices."""
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def picture(figure: Figure, name: str, description: str, note: str = "") -> Picture:
    """Render a figure: the same bytes for the same figure."""
    with matplotlib.rc_context({"svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the page's own fonts may have it
        png, svg = io.BytesIO(), io.StringIO()
        margin = figure.bbox_inches.padded(8 / _POINTS)  # the page has its own
        figure.savefig(
            png, format="png", dpi=2 * _POINTS, facecolor="white", bbox_inches=margin, metadata={"Software": None}
        )
        figure.set_layout_engine("none")  # it has been laid out
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
    title = figure.get_suptitle()
    width = round(figure.get_figwidth() * _POINTS)
    return Picture(name, title, description, note, width, _inline(svg.getvalue(), name, description), png.getvalue())


def _inline(svg: str, name: str, description: str) -> str:
    """Return the SVG element for a page: with its colours and fonts, ids of its own, and no address in it."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*|<defs>\s*<style.*?</defs>\s*", "", svg, flags=re.S)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    box = re.findall(r'viewBox="[^"]*"', svg)[0]
    label = html.escape(description)
    return f'<svg {box} role="img" aria-label="{label}"><title>{label}</title>' + svg[svg.index(">") + 1 :]
