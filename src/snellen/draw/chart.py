"""One chart: a picture for the eye, and the same numbers as a table for everybody else."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from snellen.draw.text import legible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Drawn with these colours, shown with the page's own: a page may define the CSS variables for light and for dark.
INK = "#010101"  # becomes currentColor
# Six hues of Okabe and Ito (2008), darkened until each has a contrast of 4.5:1 on white.
SERIES = ("#0067a5", "#b84300", "#00755a", "#a0407f", "#6b5b00", "#505a63")
HEAT = "#004a80"
ON_HEAT = "#fefefe"
_VARIABLES = {
    INK: "currentColor",
    HEAT: f"var(--heat,{HEAT})",
    ON_HEAT: f"var(--on-heat,{ON_HEAT})",
    **{colour: f"var(--series-{i},{colour})" for i, colour in enumerate(SERIES, start=1)},
}
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)), (0, (9, 3)), (0, (3, 3)))

FONT_SIZE = 12  # pixels at the natural width, and still 10 on a phone of 375 pixels
WIDTH = 400  # pixels


@dataclass(frozen=True, slots=True)
class Chart:
    """A finished chart.

    title, caption  plain text, not yet escaped
    svg             an ``<svg>`` element that stands alone or inside a page; always the same bytes for the same numbers
    header, rows    the table behind it; the first cell of a row names it
    width           natural width in pixels: shrinking it further would make the text too small to read
    """

    title: str
    caption: str
    svg: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    width: int = WIDTH

    def _repr_svg_(self) -> str:
        """Notebooks show the picture."""
        return self.svg


@contextmanager
def figure(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """A figure of ``width`` x ``height`` CSS pixels with one pair of axes in Snellen's style."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style: Any = house_style()
    with rc_context(style):
        canvas = Figure(figsize=(width / 72, height / 72), dpi=72, layout="constrained")
        yield canvas, canvas.add_subplot()


def house_style() -> dict[str, Any]:
    """Matplotlib's settings for everything that Snellen draws."""
    from matplotlib import rcParamsDefault

    inked = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor", "grid.color")
    return {
        # Not what a matplotlibrc on this machine says; the backend is for windows, and never touched.
        **{name: value for name, value in rcParamsDefault.items() if not name.startswith(("backend", "interactive"))},
        **dict.fromkeys(inked, INK),
        "font.family": ["DejaVu Sans"],  # comes with matplotlib: the layout is the same on every machine
        "font.size": FONT_SIZE,
        "axes.labelsize": FONT_SIZE,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "grid.alpha": 0.16,
        "grid.linewidth": 0.8,
        "xtick.labelsize": FONT_SIZE - 1,
        "ytick.labelsize": FONT_SIZE - 1,
        "legend.fontsize": FONT_SIZE - 1,
        "legend.frameon": False,
        "text.parse_math": False,  # a class may be called "$5"
        "svg.fonttype": "none",
        "path.simplify": False,
    }


def finish(
    canvas: Figure,
    *,
    title: str,
    caption: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
) -> Chart:
    """Write the figure as SVG, with colours that follow the page and ids that no other chart has."""
    table = tuple(tuple(row) for row in rows)
    salt = hashlib.sha256(repr((title, caption, tuple(header), table)).encode("utf-8", "replace")).hexdigest()[:16]
    # One pixel of the figure is one unit of the drawing, as it was made with 72 dots an inch.
    width, height = (round(72 * float(side)) for side in canvas.get_size_inches())
    drawing = _themed(_written(canvas, salt))
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" role="img" '
        f'viewBox="0 0 {width} {height}" style="stroke-linejoin:round;stroke-linecap:butt">'
        f"<title>{escape(legible(title))}</title><desc>{escape(legible(caption, 600))}</desc>{drawing}</svg>"
    )
    return Chart(title=title, caption=caption, svg=svg, header=tuple(header), rows=table, width=width)


def _written(canvas: Figure, salt: str) -> str:
    """What is inside matplotlib's ``<svg>`` element."""
    import warnings

    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    text = io.StringIO()
    unsigned = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with rc_context({"svg.hashsalt": salt}), warnings.catch_warnings():
        # The browser has the letters that the font used for the layout lacks.
        warnings.filterwarnings("ignore", message=r"(Glyph .* missing|Matplotlib currently does not support)")
        FigureCanvasSVG(canvas)  # text is measured as it will be written
        lay_out(canvas)
        canvas.savefig(text, format="svg", transparent=True, metadata=unsigned)
    return re.sub(r"^.*?<svg[^>]*>|</svg>\s*$", "", text.getvalue(), flags=re.DOTALL)


def lay_out(canvas: Figure) -> None:
    """Places for everything. A figure that still has an engine for it when it is saved is drawn twice, the first time
    for the places alone, which takes a third of the time of a chart."""
    engine = canvas.get_layout_engine()
    if engine is not None:
        engine.execute(canvas)
        canvas.set_layout_engine(None)


def _themed(drawing: str) -> str:
    """Fonts and colours left to the page, and nothing that reaches beyond this drawing."""
    drawing = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", drawing, count=1, flags=re.DOTALL)
    # Only inside tags: what users wrote stands between them, with its angle brackets escaped.
    return re.sub(r"<[^>]*>", lambda tag: _themed_tag(tag[0]), re.sub(r">\s+<", "><", drawing.strip()))


def _themed_tag(tag: str) -> str:
    tag = re.sub(r'^<g id="[^"]*"', "<g", tag)
    tag = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", tag)  # matplotlib 3.10
    tag = re.sub(r" font-family:[^;\"]*;?", "", tag)  # and 3.11
    tag = re.sub(r' transform="rotate\(-0 [^"]*"', "", tag)
    tag = re.sub(r"(\d+\.\d{2})\d+", r"\1", tag)
    tag = re.sub(r"\s+", " ", tag)
    for drawn, shown in _VARIABLES.items():
        tag = tag.replace(drawn, shown)
    return tag
