"""A row: what one query gives its keys, the heaviest by name, and all of them along the text."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from clearhead.arrays import Array
from clearhead.attention_weights.figures.canvas import COLOURS, Theme, canvas, caption, one_head
from clearhead.attention_weights.figures.fonts import PLAIN
from clearhead.attention_weights.figures.lettering import SIZE, both_tokens, named, number_items, short_name
from clearhead.attention_weights.figures.scales import Scale, scale_of, short
from clearhead.attention_weights.weights_like import WeightsLike
from clearhead.errors import InputError
from clearhead.wording import count, number, percent

MOST_BARS = 40  # a row of no more keys shows each, in their order
HEAVIEST = (8, 20)  # of a longer row at least and at most so many keys, falling
ENOUGH = 0.99  # of its weight, with which the list of the heaviest may end
CUTS = (0.5, 0.9, 0.99)  # a line is drawn below the keys that together hold these shares
BINS = 256  # of a long text along an axis
WIDTH, STRIP = 7.2, 1.7  # inches


def row(w: WeightsLike, query: int, tokens: Any = None, *, title: str = "", theme: Theme = "light") -> Figure:
    """Draw one query's weights: up to 40 keys as bars; of more the heaviest, and a strip along the whole text.

    `w` has shape (queries, keys); `tokens` name its keys, or are a pair of lists, the queries' and the keys'. Of a long
    row, the caption says how much of the weight the bars hold and how much all others. Raises InputError, also for a
    query out of range.

    >>> from clearhead import weights
    >>> figure = row(weights(np.eye(3), np.eye(3)), -1, ["a", "b", "c"])
    """
    w = one_head(w)
    queries, keys = w.shape
    if not isinstance(query, int | np.integer) or not -queries <= query < queries:
        raise InputError(f"query {query!r} is not one of the {queries}: give 0 to {queries - 1}, or -1 to {-queries}.")
    at = int(query) % queries
    itself = at if queries == keys else None  # with unequal counts, query and key numbers do not correspond
    values = np.nan_to_num(w.row(at).astype(np.float64))
    asking, asked = both_tokens(tokens, queries, keys)
    long = keys > MOST_BARS
    shown = heaviest(values) if long else np.arange(keys)
    bars_height = 0.5 + 0.19 * max(len(shown), 2)
    figure, grid = canvas(
        WIDTH, bars_height + long * STRIP, theme, 1 + long, 1, height_ratios=[bars_height, STRIP][: 1 + long]
    )
    axes = grid[0] if long else grid
    draw_bars(axes, values, shown, itself, asked, theme)
    notes = [f"weights of query {at:,}" + (f", “{short_name(asking[at])}”" if asking else "")]
    if itself is not None and itself in shown:
        notes[0] += "; itself in the other colour"
    if long:
        notes[0] += f"; {carried(values, shown)}"
        notes.append("right: the weight of a key and all above it; lines below 50, 90 and 99 %")
        notes.append(strip(grid[1], values, itself, theme))
    elif not values.any():
        notes[0] += "; it gives no key any weight"
    caption(figure, theme, title, *notes)
    return figure


def heaviest(values: Array) -> Array:
    """The heaviest keys, falling: 8, or as many as hold 99 % of the weight, up to 20; none without any weight."""
    order = np.argsort(-values, kind="stable")
    together = values[order].cumsum()
    enough = int(np.searchsorted(together, ENOUGH * together[-1])) + 1
    least, most = HEAVIEST
    return order[: min(max(least, enough), most, int(np.count_nonzero(values)))]


def carried(values: Array, shown: Array) -> str:
    """How much of a row's weight the keys shown hold, and how much the others."""
    if not len(shown):
        return "it gives no key any weight"
    total, own = float(values.sum()), float(values[shown].sum())
    nothing = len(values) - int(np.count_nonzero(values))
    rest = len(values) - len(shown)
    said = f"these {count(len(shown), 'key')} carry {percent(own)}, the other {rest:,} {percent(max(total - own, 0))}"
    if nothing:
        said += f" ({nothing:,} of them nothing)"
    return said + f"; all together {percent(total)}" * (total < 0.9995)


def draw_bars(axes: Any, values: Array, shown: Array, itself: int | None, names: list[str], theme: Theme) -> None:
    """Draw keys as bars with their weights; of a long row also what each and all above it hold."""
    colours, long = COLOURS[theme], len(values) > MOST_BARS
    drawn = named([names[j] for j in shown]) if names and len(shown) else None
    labels = [f"{text}  {j:,}" for text, j in zip(drawn.texts if drawn else [""] * len(shown), shown, strict=True)]
    longest = float(values[shown].max(initial=0)) or 1.0
    axes.barh(range(len(shown)), values[shown], color=[colours.chosen if j == itself else colours.bar for j in shown])
    for place, j in enumerate(shown):
        axes.annotate(
            number(float(values[j])),
            (values[j], place),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
            color=colours.ink,
        )
    axes.set_yticks(range(len(shown)), labels, fontsize=SIZE, family=list(drawn.families) if drawn else None, **PLAIN)
    axes.set_ylim(max(len(shown), 1) - 0.4, -0.6)
    axes.set_xlim(0, 1.18 * longest)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: short(at)))
    axes.set_xlabel("weight")
    axes.set_ylabel("key")
    if long and len(shown):
        together = values[shown].cumsum()
        beside = axes.secondary_yaxis("right")
        beside.set_yticks(range(len(shown)), [percent(share) for share in together], fontsize=SIZE)
        beside.tick_params(colors=colours.ink, length=0)
        beside.set_ylabel("together", color=colours.ink, fontsize=9)
        beside.spines["right"].set_color(colours.faint)
        for cut in CUTS:
            below = int(np.searchsorted(together, cut))
            if below < len(shown) - 1:
                axes.axhline(below + 0.5, color=colours.faint, linewidth=0.8, linestyle="--")


def strip(axes: Any, values: Array, itself: int | None, theme: Theme) -> str:
    """Draw a row's weights along the text on a log scale; return what the marks mean."""
    colours, keys = COLOURS[theme], len(values)
    borders, largest, total = binned(values)
    mean = total / np.diff(borders)
    scale = scale_of(mean, total, top=float(largest.max()))
    pooled = len(largest) < keys
    with_log_axis(axes, scale)
    edges = borders - 0.5
    if pooled:
        axes.stairs(np.maximum(mean, scale.floor), edges, baseline=scale.floor, fill=True, color=colours.faint)
        axes.stairs(np.where(largest > 0, largest, np.nan), edges, baseline=None, color=colours.bar, linewidth=1.0)
    else:
        axes.stairs(np.maximum(largest, scale.floor), edges, baseline=scale.floor, fill=True, color=colours.bar)
    if itself is not None:
        axes.axvline(itself, color=colours.chosen, linewidth=1.0, linestyle=":")
    axes.set_xlim(-0.5, keys - 0.5)
    number_items(axes.xaxis, 0, keys, 5.5 * 72)
    axes.set_xlabel("key")
    axes.set_ylabel("weight")
    said = f"line: the largest of each {bin_size(borders)} keys, shade: their mean" if pooled else "below: every key"
    return f"{said}; {scale.words}" + "; dotted: itself" * (itself is not None)


def with_log_axis(axes: Any, scale: Scale) -> None:
    """Give an axes' height to a scale."""
    axes.set_yscale("log" if scale.logarithmic else "linear")
    axes.set_ylim(scale.floor, scale.top * 1.3)
    axes.yaxis.set_major_locator(FixedLocator(scale.ticks))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda at, _: short(at)))


def binned(values: Array, bins: int = BINS) -> tuple[Array, Array, Array]:
    """Borders of at most `bins` parts of an axis, and each part's largest value and sum, over the last axis."""
    size = values.shape[-1]
    borders = np.arange(min(bins, size) + 1) * size // min(bins, size)
    return (
        borders,
        np.maximum.reduceat(values, borders[:-1], axis=-1),
        np.add.reduceat(values, borders[:-1], axis=-1),
    )


def bin_size(borders: Array) -> str:
    """How many items lie between borders: "128", or "7 or 8"."""
    least, most = int(np.diff(borders).min()), int(np.diff(borders).max())
    return f"{least:,}" if least == most else f"{least:,} or {most:,}"
