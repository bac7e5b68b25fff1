"""What all figures have in common: two themes, empty axes, a caption that fits, and files."""

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from clearhead.attention_weights.figures.fonts import PLAIN, extent, families_for, legible
from clearhead.attention_weights.weights_like import WeightsLike, as_weights
from clearhead.errors import FileError, InputError, ShapeError
from clearhead.files.writing import write_whole

Theme = Literal["light", "dark"]
KINDS = (".png", ".svg", ".pdf")
DPI = 150
SIZE = 8.5  # points, of a caption
MARGIN = 10.0  # points, left and right of it


@dataclass(frozen=True)
class Colours:
    """A theme's colours. The scale for weights also reads in greyscale."""

    paper: str
    ink: str
    faint: str
    bar: str
    chosen: str
    scale: tuple[str, ...]  # from the smallest weight, distinct from paper, to the largest


COLOURS = {
    "light": Colours(
        "#ffffff", "#1a1a1a", "#b0b0b0", "#0072b2", "#d55e00", ("#e3ecf5", "#9cc3e0", "#3b86c0", "#0b4a86", "#06203f")
    ),
    "dark": Colours(
        "#14171c", "#e8e8e8", "#555b66", "#56b4e9", "#e69f00", ("#222c3a", "#30557f", "#3f93b8", "#8fd0b0", "#fdf3b0")
    ),
}


def canvas(
    width: float, height: float, theme: Theme, rows: int = 1, columns: int = 1, **grid_options: Any
) -> tuple[Figure, Any]:
    """Create a figure, its size in inches, and its axes in a theme's colours."""
    if theme not in COLOURS:
        raise InputError(f"theme={theme!r} is unknown: use 'light' or 'dark'.")
    colours = COLOURS[theme]
    figure = Figure(figsize=(width, height), layout="constrained", facecolor=colours.paper)
    grid = figure.subplots(rows, columns, **grid_options)
    for axes in np.asarray(grid).reshape(-1):
        axes.set_facecolor(colours.paper)
        axes.tick_params(which="both", colors=colours.ink, labelsize=8)
        for axis in (axes.xaxis, axes.yaxis):
            axis.label.set(color=colours.ink, size=9)
        for spine in axes.spines.values():
            spine.set_color(colours.faint)
    return figure, grid


def caption(figure: Figure, theme: Theme, *lines: str) -> None:
    """Write a title and what must be known to read the figure, in lines no longer than the figure is wide.

    The figure grows by their height.
    """
    families = families_for("".join(lines))
    room = figure.get_figwidth() * 72 - 2 * MARGIN
    wrapped = [part for line in lines for part in wrap(legible(line, families), room, families)]
    if not wrapped:
        return
    text = "\n".join(wrapped)
    figure.set_figheight(figure.get_figheight() + (extent(text, SIZE, families)[1] + 6) / 72)
    where = MARGIN / 72 / figure.get_figwidth()
    options = {"fontsize": SIZE, "family": list(families), "color": COLOURS[theme].ink, **PLAIN}
    figure.suptitle(text, x=where, ha="left", **options)


def wrap(line: str, room: float, families: tuple[str, ...]) -> Iterator[str]:
    """Break a line into ones of at most `room` points, between words where that is possible."""
    for part in line.splitlines():
        text = part
        while text:
            cut = fitting(text, room, families)
            if cut < len(text) and (blank := text.rfind(" ", 1, cut + 1)) > 0:
                cut = blank
            yield text[:cut].rstrip()
            text = text[cut:].lstrip()


def fitting(text: str, room: float, families: tuple[str, ...]) -> int:
    """How many of a text's characters, at least one, fit into `room` points."""
    least, most = 1, len(text)
    while least < most:
        middle = (least + most + 1) // 2
        fits = extent(text[:middle], SIZE, families)[0] <= room
        least, most = (middle, most) if fits else (least, middle - 1)
    return least


def drawable(w: WeightsLike) -> WeightsLike:
    """Check that `w` is weights with at least one head, query and key."""
    w = as_weights(w)
    if 0 in w.shape:
        raise ShapeError(f"weights of shape {w.shape} have nothing to draw: give at least one head, query and key.")
    return w


def one_head(w: WeightsLike) -> WeightsLike:
    """Check that `w` is the weights of one head."""
    w = drawable(w)
    if w.ndim != 2:
        raise ShapeError(f"weights of shape {w.shape} have several heads: choose one, as by w[0], or use heads(w).")
    return w


def save(figure: Figure, path: str | os.PathLike[str], *, force: bool = True) -> None:
    """Save a figure as .png, .svg or .pdf, atomically, in place of an existing file unless force=False.

    Raises FileError.

    >>> from clearhead import plot, weights
    >>> save(plot.heat(weights(np.eye(3), np.eye(3))), getfixture("tmp_path") / "heat.svg")
    """
    target = Path(path)
    if target.suffix.lower() not in KINDS:
        raise FileError(f"{target} does not name a picture: use a file that ends in {', '.join(KINDS)}.")
    write_whole(target, picture_of(figure, target.suffix.lower().lstrip(".")), force=force)


def picture_of(figure: Figure, kind: str = "png") -> bytes:
    """Encode a figure as the bytes of a file. Omits the date, so equal figures give equal files."""
    metadata: dict[str, Any] = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "clearhead"}):  # or ids in a .svg are drawn at random
        figure.savefig(buffer, format=kind, dpi=DPI, facecolor=figure.get_facecolor(), metadata=metadata)
    return buffer.getvalue()
