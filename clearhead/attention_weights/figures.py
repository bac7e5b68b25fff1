"""The figures of `clearhead.plot`, with matplotlib (`pip install clearhead[plot]`).

Responsible for how weights look: colours that are safe for colour-blind readers, light and dark themes, labels, and
captions for pooled pictures. All numbers come from `weights`; `Weights.map` pools large matrices, never samples them.
"""

import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from clearhead.arrays import Array, ceil_div
from clearhead.attention_weights.weights_like import WeightsLike, as_weights
from clearhead.errors import FileError, InputError, ShapeError
from clearhead.files.writing import write_whole
from clearhead.wording import label, number

try:
    from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize, PowerNorm
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError("clearhead.plot needs matplotlib: pip install clearhead[plot]") from error

Theme = Literal["light", "dark"]
MOST_NAMED = 64  # a heat map of more items is labelled with numbers
MOST_BARS = 40  # keys of a row that get separate bars
MAX_LABEL_LENGTH = 24  # characters of a label
PALE = 100  # if the maximum is this many times the median, use a log scale
KEYS, QUERIES = "key (attended to)", "query (attending)"
PIXELS = 512  # maximum height and width of a heat map
SHEET_PIXELS = 96  # the same for one head on a sheet of heads
KINDS = (".png", ".svg", ".pdf")


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


def heat(
    w: WeightsLike,
    tokens: Sequence[str] | None = None,
    *,
    rows: slice = slice(None),
    columns: slice = slice(None),
    title: str = "",
    theme: Theme = "light",
) -> Figure:
    """Draw one head's weights as a heat map, queries down, keys across; hidden pairs stay blank.

    `w` has shape (queries, keys). More than 512 queries or keys are pooled: each pixel shows its largest weight, and
    the caption says so. Colour follows the square root of the weight or, where that would leave most of a long text
    pale, its logarithm; the legend says which. Raises InputError.

    >>> from clearhead import weights
    >>> figure = heat(weights(np.eye(3), np.eye(3)), ["a", "b", "c"])
    >>> save(figure, getfixture("tmp_path") / "heat.svg")
    """
    w = one_head(w)
    picture = w.map(rows, columns, size=PIXELS)
    (first_row, stop_row), (first, stop) = (
        part.indices(size)[:2] for part, size in zip((rows, columns), w.shape, strict=True)
    )
    if not picture.size:
        raise InputError(f"rows={rows} and columns={columns} of weights {w.shape} select nothing: choose some of each.")
    figure, axes = canvas(7.2, 6.4, theme)
    image = paint(
        axes,
        picture,
        theme,
        colour_scale(picture, w.shape[1]),
        (first - 0.5, stop - 0.5, stop_row - 0.5, first_row - 0.5),
    )
    legend(figure, image, axes, theme)
    name_items(axes.xaxis, tokens, first, stop, w.shape[1])
    name_items(axes.yaxis, tokens, first_row, stop_row, w.shape[0])
    axes.set_xlabel(KEYS)
    axes.set_ylabel(QUERIES)
    caption(axes, title, pooling_note(picture, (stop_row - first_row, stop - first)))
    return figure


def row(
    w: WeightsLike, query: int, tokens: Sequence[str] | None = None, *, title: str = "", theme: Theme = "light"
) -> Figure:
    """Draw one query's weights as labelled bars: all keys, or the 40 heaviest and one bar for the rest.

    `w` has shape (queries, keys). The bar for the rest is cut off if it would make the others too short to read. Raises
    InputError, also for a query out of range.

    >>> from clearhead import weights
    >>> figure = row(weights(np.eye(3), np.eye(3)), -1, ["a", "b", "c"])
    """
    w = one_head(w)
    queries, keys = w.shape
    if not isinstance(query, int | np.integer) or not -queries <= query < queries:
        raise InputError(f"query {query!r} is not one of the {queries}: give 0 to {queries - 1}, or -1 to {-queries}.")
    at = int(query) % queries
    itself = at if queries == keys else None  # with unequal counts, query and key numbers do not correspond
    values = w.row(at).astype(np.float64)
    names = token_names(tokens, keys)
    shown = np.flatnonzero(values) if keys > MOST_BARS else np.arange(keys)
    shown = np.sort(shown[np.argsort(-values[shown], kind="stable")[:MOST_BARS]])
    figure, axes = canvas(7.2, 1.2 + 0.24 * (len(shown) + (len(shown) < keys)), theme)
    colours = COLOURS[theme]
    labels = [f"{shorten(names[j])}  {j}" if names else f"{j}" for j in shown]
    longest = float(values[shown].max(initial=1e-12)) * 1.15
    bars(axes, range(len(shown)), values[shown], [colours.chosen if j == itself else colours.bar for j in shown], theme)
    if len(shown) < keys:
        rest = float(values.sum() - values[shown].sum())
        labels.append(f"the other {keys - len(shown):,}")
        longest = max(longest, rest * 1.15) if rest <= 2 * longest else longest
        bars(axes, [len(shown)], [rest], [colours.faint], theme, cut_at=longest)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_xlim(0, longest)
    axes.set_xlabel("weight")
    axes.set_ylabel("key")
    named = f", “{shorten(names[itself])}”," if names and itself is not None else ""
    caption(
        axes,
        title,
        f"weights of query {at}{named}" + "; itself in the other colour" * bool(itself is not None and itself in shown),
    )
    return figure


def profile(w: WeightsLike, *, title: str = "", theme: Theme = "light") -> Figure:
    """Draw each head's effective number of keys and mean distance, averaged over queries.

    `w` has shape (..., queries, keys); each mark also shows the middle half of the queries.

    >>> from clearhead import weights
    >>> x = np.zeros((2, 5, 4))
    >>> figure = profile(weights(x, x))
    """
    w = drawable(w)
    summary = w.summary("effective", "distance")
    heads = math.prod(w.shape[:-2])
    figure, both = canvas(max(5.0, 2.5 + 0.28 * heads), 5.2, theme, 2)
    colours = COLOURS[theme]
    for axes, name, axis_label in zip(
        both, ("effective", "distance"), ("effective keys (e^entropy)", "mean distance, in items"), strict=True
    ):
        values = summary[name].reshape(heads, -1).astype(np.float64)
        low, middle, high = np.quantile(values, (0.25, 0.5, 0.75), axis=1)
        axes.vlines(range(heads), low, high, color=colours.faint, linewidth=5)
        axes.plot(range(heads), middle, "_", color=colours.ink, markersize=9)
        axes.plot(range(heads), values.mean(axis=1), "o", color=colours.bar, markersize=5)
        axes.set_ylabel(axis_label)
        axes.set_ylim(bottom=0)
        axes.set_xticks(range(heads), head_names(w), rotation=90 if heads > 16 else 0, fontsize=8)
    both[1].set_xlabel("head")
    caption(both[0], title, "dot: mean over queries; dash: median; band: middle half")
    return figure


def received(w: WeightsLike, tokens: Sequence[str] | None = None, *, title: str = "", theme: Theme = "light") -> Figure:
    """Draw how much weight each key receives from all queries: a line per head, or their range.

    `w` has shape (..., queries, keys). The scale is logarithmic if the minimum is under a hundredth of the maximum.

    >>> from clearhead import weights
    >>> x = np.zeros((2, 5, 4))
    >>> figure = received(weights(x, x), list("abcde"))
    """
    w = drawable(w)
    mass = w.summary("received_sum").received_sum.reshape(-1, w.shape[-1]).astype(np.float64)
    figure, axes = canvas(8.0, 3.6, theme)
    colours = COLOURS[theme]
    heads, keys = len(mass), np.arange(w.shape[-1])
    if heads > 8:
        axes.fill_between(keys, mass.min(axis=0), mass.max(axis=0), color=colours.faint, alpha=0.6, linewidth=0)
    for own in mass if 1 < heads <= 8 else []:
        axes.plot(keys, own, color=colours.faint, linewidth=1)
    axes.plot(
        keys, mass.mean(axis=0), color=colours.bar, linewidth=1.6, marker="o" * (len(keys) <= MOST_NAMED), markersize=3
    )
    least, most = mass.min(initial=np.inf, where=mass > 0), mass.max()
    logarithmic = bool(most > 100 * least)
    if logarithmic:
        axes.set_yscale("log", nonpositive="clip")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    else:
        axes.set_ylim(bottom=0)
    axes.set_ylabel("weight received")
    axes.set_xlim(-0.5, w.shape[-1] - 0.5)
    name_items(axes.xaxis, tokens, 0, w.shape[-1], w.shape[-1])
    axes.set_xlabel("key")
    each = f"blue: mean of {heads} heads; grey: each" + " (range)" * (heads > 8)
    caption(axes, title, (each if heads > 1 else "sum over queries") + "; on a log scale" * logarithmic)
    return figure


def heads(w: WeightsLike, *, title: str = "", theme: Theme = "light") -> Figure:
    """Draw all heads as small heat maps on one scale, titled with their mean effective number of keys.

    `w` has shape (..., queries, keys). More than 96 queries or keys are pooled as in `heat`, and the caption says so.

    >>> from clearhead import weights
    >>> x = np.zeros((3, 5, 4))
    >>> figure = heads(weights(x, x))
    """
    w = drawable(w)
    pictures = w.map(size=SHEET_PIXELS)
    pictures = pictures.reshape(-1, *pictures.shape[-2:])
    spread = w.summary("effective").effective.reshape(len(pictures), -1).mean(axis=1)
    columns = min(len(pictures), max(4, math.ceil(math.sqrt(1.5 * len(pictures)))))
    rows = ceil_div(len(pictures), columns)
    figure, grid = canvas(max(4.4, 1.4 + 1.45 * columns), 1.3 + 1.75 * rows, theme, rows, columns)
    colours, names, scale = COLOURS[theme], head_names(w), colour_scale(pictures, w.shape[-1])
    image: Any = None
    for n, axes in enumerate(np.asarray(grid).reshape(-1)):
        if n >= len(pictures):
            axes.set_visible(False)
            continue
        image = paint(axes, pictures[n], theme, scale, None)
        axes.set_xticks([])
        axes.set_yticks([])
        count = f"{spread[n]:.3g}"
        axes.set_title(f"{names[n]} · {count} key" + "s" * (count != "1"), fontsize=7.5, color=colours.ink)
    legend(figure, image, grid, theme)
    heading = "\n".join(filter(None, [title or "heads", pooling_note(pictures[0], w.shape[-2:])]))
    figure.suptitle(heading, color=colours.ink, fontsize=10)
    figure.supxlabel(KEYS, color=colours.ink, fontsize=9)
    figure.supylabel(QUERIES, color=colours.ink, fontsize=9)
    return figure


def save(figure: Figure, path: str | os.PathLike[str], *, force: bool = True) -> None:
    """Save a figure as .png, .svg or .pdf, atomically; raises FileError."""
    target = Path(path)
    if target.suffix.lower() not in KINDS:
        raise FileError(f"{target} does not name a picture: use a file that ends in {', '.join(KINDS)}.")
    write_whole(target, picture_of(figure, target.suffix.lower().lstrip(".")), force=force)


def picture_of(figure: Figure, kind: str = "png") -> bytes:
    """Encode a figure as the bytes of a file. Omits the date, so equal figures give equal files."""
    metadata: dict[str, Any] = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=150, facecolor=figure.get_facecolor(), metadata=metadata)
    return buffer.getvalue()


# Parts


def canvas(width: float, height: float, theme: Theme, rows: int = 1, columns: int = 1) -> tuple[Figure, Any]:
    """Create a figure and its axes in a theme's colours."""
    if theme not in COLOURS:
        raise InputError(f"theme={theme!r} is unknown: use 'light' or 'dark'.")
    colours = COLOURS[theme]
    figure = Figure(figsize=(width, height), layout="constrained", facecolor=colours.paper)
    grid = figure.subplots(rows, columns)
    for axes in np.asarray(grid).reshape(-1):
        axes.set_facecolor(colours.paper)
        axes.tick_params(colors=colours.ink, labelsize=8)
        axes.xaxis.label.set_color(colours.ink)
        axes.yaxis.label.set_color(colours.ink)
        axes.yaxis.label.set_size(9)
        for spine in axes.spines.values():
            spine.set_color(colours.faint)
    return figure, grid


def colour_scale(pictures: Array, keys: int) -> Normalize:
    """A square-root scale from 0 to the largest weight, or a log scale if most weights are far below that.

    The log scale starts at a hundredth of a uniform weight, 1 / keys.
    """
    seen = pictures[pictures > 0]
    top = float(seen.max(initial=0)) or 1.0
    if not seen.size or np.median(seen) * PALE >= top:
        return PowerNorm(0.5, vmin=0, vmax=top)
    return LogNorm(vmin=min(0.01 / keys, top / PALE), vmax=top)


def paint(axes: Any, picture: Array, theme: Theme, scale: Normalize, extent: Any) -> Any:
    """Draw a picture of weights; exact zeros, which are mostly hidden pairs, stay blank."""
    shown = np.ma.masked_equal(picture, 0)
    colours = LinearSegmentedColormap.from_list("weight", COLOURS[theme].scale)
    return axes.imshow(shown, norm=scale, cmap=colours, extent=extent, aspect="auto", interpolation="nearest")


def legend(figure: Figure, image: Any, axes: Any, theme: Theme) -> None:
    """Add a colour bar for weights."""
    colours, scale = COLOURS[theme], image.norm
    logarithmic = isinstance(scale, LogNorm)
    bar = figure.colorbar(image, ax=axes, fraction=0.045, pad=0.02, extend="min" if logarithmic else "neither")
    text = f"weight, on a log scale; less than {scale.vmin:.0e} in one colour" if logarithmic else "weight"
    bar.set_label(text, color=colours.ink, fontsize=8)
    bar.ax.tick_params(which="both", colors=colours.ink, labelsize=8)
    bar.outline.set_edgecolor(colours.faint)


def pooling_note(picture: Array, shape: Sequence[int]) -> str:
    """Caption for a picture with fewer pixels than weights."""
    height, width = (count / pixels for count, pixels in zip(shape, picture.shape, strict=True))
    return "" if height == width == 1 else f"pooled: each pixel is the largest of {height:.3g} × {width:.3g} weights"


def bars(
    axes: Any, positions: Sequence[int], values: Any, paints: list[str], theme: Theme, cut_at: float = math.inf
) -> None:
    """Draw bars with their values; a bar cut off at the end of the scale says so."""
    axes.barh(positions, values, color=paints)
    for at, value in zip(positions, values, strict=True):
        cut = bool(value > cut_at)
        axes.annotate(
            number(value) + ", longer than the scale" * cut,
            (min(value, cut_at), at),
            xytext=(-6 if cut else 3, 0),
            textcoords="offset points",
            va="center",
            ha="right" if cut else "left",
            fontsize=7,
            color=COLOURS[theme].ink,
        )


def name_items(axis: Any, tokens: Sequence[str] | None, first: int, stop: int, count: int) -> None:
    """Label an axis with names if all fit, else with numbers."""
    if names := token_names(tokens, count)[first:stop] if stop - first <= MOST_NAMED else []:
        axis.set_ticks(range(first, stop), [shorten(name) for name in names], fontsize=min(8.0, 330 / len(names)))
        if axis.axis_name == "x":
            axis.set_tick_params(rotation=90)


def token_names(tokens: Sequence[str] | None, count: int) -> list[str]:
    """Check tokens and return them as strings; an empty list without tokens."""
    if tokens is None:
        return []
    if isinstance(tokens, str) or not hasattr(tokens, "__len__"):
        raise InputError(f"tokens={tokens!r} must be a list of names: give one for each item.")
    if len(tokens) != count:
        raise ShapeError(f"{len(tokens)} tokens do not match {count} items: give one for each item.")
    return [str(token) for token in tokens]


def shorten(name: str) -> str:
    """Shorten a name to fit, with control characters made visible and an ellipsis at a cut."""
    safe = label(name)
    return (safe if len(safe) <= MAX_LABEL_LENGTH else f"{safe[: MAX_LABEL_LENGTH - 1]}…").replace("$", r"\$")


def head_names(w: WeightsLike) -> list[str]:
    """Name each head by its index along the leading axes."""
    return [".".join(map(str, at)) or "0" for at in np.ndindex(w.shape[:-2])]


def caption(axes: Any, title: str, note: str) -> None:
    """Add a title, with a note below it."""
    axes.set_title("\n".join(filter(None, [title, note])), fontsize=9, color=axes.xaxis.label.get_color(), loc="left")


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
