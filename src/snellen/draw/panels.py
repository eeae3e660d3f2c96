"""A picture of one or more panels under a title that says what there is to see, written to a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snellen.draw.chart import FONT_SIZE, house_style, lay_out
from snellen.draw.text import legible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHARPNESS = 2  # pixels of the file for one of the layout


@contextmanager
def panels(
    path: Path, title: str, *, rows: int = 1, columns: int = 1, width: float = 880, height: float = 380
) -> Iterator[list[Axes]]:
    """Axes in Snellen's style, row by row; what is drawn on them is written to ``path``, a PNG file, at the end.

    title          what the picture shows, as a sentence
    width, height  pixels of the layout; the file has twice as many
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style: Any = house_style()
    with rc_context(style):
        canvas = Figure(figsize=(width / 72, height / 72), dpi=72, layout="constrained")
        canvas.suptitle(legible(title, 160), x=0.01, ha="left", fontsize=FONT_SIZE + 2, fontweight="bold")
        grid = canvas.subplots(rows, columns, squeeze=False)
        yield list(grid.flat)
        for axes in grid.flat:
            _plain_powers(axes)
        lay_out(canvas)
        path.parent.mkdir(parents=True, exist_ok=True)
        unsigned: Any = {"Software": None}  # the same bytes with each version
        canvas.savefig(path, dpi=72 * _SHARPNESS, facecolor="white", metadata=unsigned)


def _plain_powers(axes: Axes) -> None:
    """0.001 on a logarithmic axis: matplotlib's own 10⁻³ is set as mathematics, which the style leaves unparsed."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())


def key(axes: Axes, columns: int = 1) -> None:
    """The legend above the panel, where it hides nothing."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, ncols=columns, handlelength=2.6)


def show(axes: Axes, image: Any, *, title: str = "", **options: Any) -> None:
    """An image [h, w] or [h, w, 3] without axes, its pixels as they are."""
    axes.imshow(image, interpolation="nearest", **{"cmap": "gray", **options})
    axes.set_title(title, fontsize=FONT_SIZE)
    axes.set_axis_off()
