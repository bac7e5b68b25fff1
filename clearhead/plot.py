"""Figures of attention weights, with matplotlib (`pip install clearhead[plot]`).

Decides how weights look: colours that the colour-blind tell apart, light or dark, labels, and what is said where there
is no room. Every number comes from `weights`; a picture of many items is `Weights.map`'s, exact and never sampled.
"""

import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from clearhead.errors import FileError, InputError, ShapeError
from clearhead.files.writing import write_whole
from clearhead.problem import Array

if TYPE_CHECKING:
    from clearhead.weights import Weights

try:
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError("clearhead.plot needs matplotlib: pip install clearhead[plot]") from error

Theme = Literal["light", "dark"]
MOST_NAMED = 64  # items of a heat map that get their names
MOST_BARS = 40  # items of a row that get a bar of their own
LONGEST = 24  # characters of a name
PIXELS = 512  # of a heat map, each way
SHEET_PIXELS = 96  # of one head on a sheet of them
KINDS = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class Colours:
    """What a theme paints with; the scale of weights is readable without colours too."""

    paper: str
    ink: str
    faint: str
    bar: str
    chosen: str
    scale: tuple[str, ...]  # from the smallest weight, which is not yet paper, to the largest


COLOURS = {
    "light": Colours(
        "#ffffff", "#1a1a1a", "#b0b0b0", "#0072b2", "#d55e00", ("#e3ecf5", "#9cc3e0", "#3b86c0", "#0b4a86", "#06203f")
    ),
    "dark": Colours(
        "#14171c", "#e8e8e8", "#555b66", "#56b4e9", "#e69f00", ("#222c3a", "#30557f", "#3f93b8", "#8fd0b0", "#fdf3b0")
    ),
}


def heat(
    w: "Weights",
    tokens: Sequence[str] | None = None,
    *,
    rows: slice = slice(None),
    columns: slice = slice(None),
    title: str = "",
    theme: Theme = "light",
) -> Figure:
    """One head's weights as a heat map, query by query down, key by key across; what is hidden stays blank.

    `w` is of shape (queries, keys). More than 512 items each way are pooled: each pixel shows its largest weight, and
    the caption says so. Colour goes with the square root of the weight. Raises ShapeError.

    >>> from clearhead import weights
    >>> figure = heat(weights(np.eye(3), np.eye(3)), ["a", "b", "c"])
    >>> save(figure, getfixture("tmp_path") / "heat.svg")
    """
    one_head(w)
    (first_row, stop_row), (first, stop) = (
        part.indices(size)[:2] for part, size in zip((rows, columns), w.shape, strict=True)
    )
    picture = w.map(rows, columns, size=PIXELS)
    figure, axes = canvas(7.2, 6.4, theme)
    colours = COLOURS[theme]
    image = paint(axes, picture, colours, (first - 0.5, stop - 0.5, stop_row - 0.5, first_row - 0.5))
    bar = figure.colorbar(image, ax=axes, fraction=0.045, pad=0.02)
    bar.set_label("weight", color=colours.ink)
    bar.ax.tick_params(colors=colours.ink)
    bar.outline.set_edgecolor(colours.faint)
    name_items(axes.xaxis, tokens, first, stop, w.shape[1])
    name_items(axes.yaxis, tokens, first_row, stop_row, w.shape[0])
    axes.set_xlabel("key: what is looked at")
    axes.set_ylabel("query: who looks")
    pooled = picture.shape != (stop_row - first_row, stop - first)
    caption(axes, title, "each pixel the largest weight of its cells" if pooled else "")
    return figure


def row(
    w: "Weights", query: int, tokens: Sequence[str] | None = None, *, title: str = "", theme: Theme = "light"
) -> Figure:
    """What one query looks at: a bar for each key, its name beside it; of many, the 40 heaviest and the rest as one.

    `w` is of shape (queries, keys). Raises ShapeError, or IndexError for a query that is not there.

    >>> from clearhead import weights
    >>> figure = row(weights(np.eye(3), np.eye(3)), -1, ["a", "b", "c"])
    """
    one_head(w)
    query = range(w.shape[0])[query]
    values = w.row(query).astype(np.float64)
    names = names_of(tokens, w.shape[1])
    shown = np.flatnonzero(values) if len(values) > MOST_BARS else np.arange(len(values))
    shown = np.sort(shown[np.argsort(-values[shown], kind="stable")[:MOST_BARS]])
    rest = len(values) - len(shown)
    labels = [f"{shorten(names[j])}  {j}" for j in shown]
    heights = [*values[shown]]
    if rest:
        labels.append(f"the other {rest:,}")
        heights.append(float(values.sum() - values[shown].sum()))
    figure, axes = canvas(7.2, 1.2 + 0.24 * len(labels), theme)
    colours = COLOURS[theme]
    paints = [colours.chosen if j == query else colours.bar for j in shown] + [colours.faint] * bool(rest)
    axes.barh(range(len(labels)), heights, color=paints)
    for at, value in enumerate(heights):
        axes.annotate(
            f"{value:.4f}" if value >= 5e-5 or not value else f"{value:.0e}", (value, at), xytext=(3, 0),
            textcoords="offset points", va="center", fontsize=7, color=colours.ink,
        )  # fmt: skip
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_xlim(0, max([*heights, 1e-12]) * 1.15)
    axes.set_xlabel("weight")
    own = f", “{shorten(names[query])}”," if tokens is not None and query < len(names) else ""
    caption(axes, title, f"what query {query}{own} looks at; itself in the other colour")
    return figure


def profile(w: "Weights", *, title: str = "", theme: Theme = "light") -> Figure:
    """How each head looks: over how many keys its weight is spread, and how far back they lie; mean over queries.

    `w` is of shape (..., queries, keys); each mark also shows the middle half of the queries.

    >>> from clearhead import weights
    >>> x = np.zeros((2, 5, 4))
    >>> figure = profile(weights(x, x))
    """
    found = w.summary("effective", "distance")
    heads = math.prod(w.shape[:-2])
    figure, both = canvas(max(5.0, 2.5 + 0.28 * heads), 5.2, theme, 2)
    colours = COLOURS[theme]
    for axes, name, label in zip(
        both, ("effective", "distance"), ("keys, effectively (e^entropy)", "mean distance"), strict=True
    ):
        values = found[name].reshape(heads, -1).astype(np.float64)
        low, middle, high = np.quantile(values, (0.25, 0.5, 0.75), axis=1)
        axes.vlines(range(heads), low, high, color=colours.faint, linewidth=5)
        axes.plot(range(heads), middle, "_", color=colours.ink, markersize=9)
        axes.plot(range(heads), values.mean(axis=1), "o", color=colours.bar, markersize=5)
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        axes.set_xticks(range(heads), head_names(w), rotation=90 if heads > 16 else 0, fontsize=8)
    both[1].set_xlabel("head")
    caption(both[0], title, "dot: mean over queries; dash: median; band: their middle half")
    return figure


def received(w: "Weights", tokens: Sequence[str] | None = None, *, title: str = "", theme: Theme = "light") -> Figure:
    """How much weight each key receives from all queries, along the sequence; a line for each head, or their band.

    `w` is of shape (..., queries, keys).

    >>> from clearhead import weights
    >>> x = np.zeros((2, 5, 4))
    >>> figure = received(weights(x, x), list("abcde"))
    """
    mass = w.summary("received_sum").received_sum.reshape(-1, w.shape[-1]).astype(np.float64)
    figure, axes = canvas(8.0, 3.6, theme)
    colours = COLOURS[theme]
    keys = np.arange(w.shape[-1])
    if len(mass) > 8:
        axes.fill_between(keys, mass.min(axis=0), mass.max(axis=0), color=colours.faint, alpha=0.6, linewidth=0)
    for own in mass if len(mass) <= 8 else []:
        axes.plot(keys, own, color=colours.faint, linewidth=1)
    axes.plot(keys, mass.mean(axis=0), color=colours.bar, linewidth=1.6)
    axes.set_yscale("symlog", linthresh=max(float(mass.mean()) / 10, 1e-12))
    axes.set_ylabel("weight received")
    axes.set_xlim(-0.5, w.shape[-1] - 0.5)
    name_items(axes.xaxis, tokens, 0, w.shape[-1], w.shape[-1])
    axes.set_xlabel("key")
    heads = len(mass)
    caption(axes, title, "" if heads == 1 else f"blue: mean of {heads} heads; grey: each" + " (range)" * (heads > 8))
    return figure


def heads(w: "Weights", *, title: str = "", theme: Theme = "light") -> Figure:
    """All heads side by side, each a small heat map on the same scale, its mean effective number of keys below.

    `w` is of shape (..., queries, keys).

    >>> from clearhead import weights
    >>> x = np.zeros((3, 5, 4))
    >>> figure = heads(weights(x, x))
    """
    pictures = w.map(size=SHEET_PIXELS)
    pictures = pictures.reshape(-1, *pictures.shape[-2:])
    spread = w.summary("effective").effective.reshape(len(pictures), -1).mean(axis=1)
    wide = min(len(pictures), max(4, math.ceil(math.sqrt(1.5 * len(pictures)))))
    tall = -(-len(pictures) // wide)
    figure, grid = canvas(1.0 + 1.45 * wide, 1.0 + 1.75 * tall, theme, tall, wide)
    colours = COLOURS[theme]
    image: Any = None
    for n, axes in enumerate(np.asarray(grid).reshape(-1)):
        if n >= len(pictures):
            axes.set_visible(False)
            continue
        image = paint(axes, pictures[n], colours, None, float(pictures.max()))
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(f"{head_names(w)[n]} · {spread[n]:.3g} keys", fontsize=7.5, color=colours.ink)
    bar = figure.colorbar(image, ax=grid, fraction=0.03, pad=0.02)
    bar.ax.tick_params(colors=colours.ink)
    bar.outline.set_edgecolor(colours.faint)
    figure.suptitle(title or "heads: queries down, keys across", color=colours.ink, fontsize=10)
    return figure


def save(figure: Figure, path: str | os.PathLike[str], *, force: bool = True) -> None:
    """Write a figure to a .png, .svg or .pdf file, whole or not at all; raises FileError."""
    target = Path(path)
    if target.suffix.lower() not in KINDS:
        raise FileError(f"{target} is no picture: name a file that ends in {', '.join(KINDS)}.")
    write_whole(target, picture_of(figure, target.suffix.lower().lstrip(".")), force=force)


def picture_of(figure: Figure, kind: str = "png") -> bytes:
    """A figure as the bytes of a file, without a date, so that equal figures are equal files."""
    about: dict[str, Any] = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
    to = io.BytesIO()
    figure.savefig(to, format=kind, dpi=150, facecolor=figure.get_facecolor(), metadata=about)
    return to.getvalue()


# Parts


def canvas(width: float, height: float, theme: Theme, tall: int = 1, wide: int = 1) -> tuple[Figure, Any]:
    """A figure and its axes in a theme's colours."""
    if theme not in COLOURS:
        raise InputError(f"theme={theme!r} is unknown: use 'light' or 'dark'.")
    colours = COLOURS[theme]
    figure = Figure(figsize=(width, height), layout="constrained", facecolor=colours.paper)
    grid = figure.subplots(tall, wide)
    for axes in np.asarray(grid).reshape(-1):
        axes.set_facecolor(colours.paper)
        axes.tick_params(colors=colours.ink, labelsize=8)
        axes.xaxis.label.set_color(colours.ink)
        axes.yaxis.label.set_color(colours.ink)
        for spine in axes.spines.values():
            spine.set_color(colours.faint)
    return figure, grid


def paint(axes: Any, picture: Array, colours: Colours, extent: Any, top: float | None = None) -> Any:
    """A picture of weights; what is exactly 0, hidden for the most part, stays paper."""
    shown = np.ma.masked_equal(picture, 0)
    top = top or float(picture.max(initial=0)) or 1.0
    norm = PowerNorm(0.5, vmin=0, vmax=top)
    scale = LinearSegmentedColormap.from_list("weight", colours.scale)
    return axes.imshow(shown, norm=norm, cmap=scale, extent=extent, aspect="auto", interpolation="nearest")


def name_items(axis: Any, tokens: Sequence[str] | None, first: int, stop: int, count: int) -> None:
    """Names on an axis where there is room for all, else numbers."""
    if tokens is not None and stop - first <= MOST_NAMED:
        names = names_of(tokens, count)[first:stop]
        axis.set_ticks(range(first, stop), [shorten(name) for name in names])
        if axis.axis_name == "x":
            axis.set_tick_params(rotation=90)


def names_of(tokens: Sequence[str] | None, count: int) -> list[str]:
    """The items' names; without tokens, none."""
    if tokens is None:
        return [""] * count
    if len(tokens) != count:
        raise ShapeError(f"{len(tokens)} tokens for {count} items: give each one its own.")
    return [str(token) for token in tokens]


def shorten(name: str) -> str:
    """A name that fits: control characters shown, and an ellipsis where it is cut."""
    safe = "".join(c if c.isprintable() else "�" for c in name).replace("$", r"\$")
    return safe if len(safe) <= LONGEST else safe[: LONGEST - 1] + "…"


def head_names(w: "Weights") -> list[str]:
    """Each head's place among the leading axes."""
    return [".".join(map(str, at)) or "0" for at in np.ndindex(w.shape[:-2])]


def caption(axes: Any, title: str, note: str) -> None:
    """A title, and below it what one must know of the picture."""
    axes.set_title("\n".join(filter(None, [title, note])), fontsize=9, color=axes.xaxis.label.get_color(), loc="left")


def one_head(w: "Weights") -> None:
    """Only one head fits here."""
    if w.ndim != 2:
        raise ShapeError(f"weights of shape {w.shape} are of several heads: choose one, as by w[0], or use heads(w).")
