"""What each key receives from all queries together."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from clearhead.arrays import Array
from clearhead.attention_weights.figures.canvas import COLOURS, Theme, canvas, caption, drawable
from clearhead.attention_weights.figures.lettering import both_tokens, name_items, names_of, pitch_of
from clearhead.attention_weights.figures.rows import bin_size, binned
from clearhead.attention_weights.figures.scales import short
from clearhead.attention_weights.weights_like import WeightsLike

FEW_HEADS = 8  # up to so many have a line each
OUTLIER = 2.0  # times the most that any other key receives, above which the first key is cut off
LENGTH = 460.0  # points


def received(w: WeightsLike, tokens: Any = None, *, title: str = "", theme: Theme = "light") -> Figure:
    """Draw how much weight each key receives from all queries, on a linear scale: a line per head, or their range.

    `w` has shape (..., queries, keys); `tokens` name its keys, or are a pair of lists, the queries' and the keys'. More
    than 256 keys are binned, and the caption says what is shown of a bin. Where the first key receives more than twice
    what any other does, it is cut off and its number printed.

    >>> from clearhead import weights
    >>> x = np.zeros((2, 5, 4))
    >>> figure = received(weights(x, x), list("abcde"))
    """
    w = drawable(w)
    queries, keys = w.shape[-2:]
    names = names_of(both_tokens(tokens, queries, keys)[1], 0, keys)
    mass = np.nan_to_num(w.summary("received_sum").received_sum.reshape(-1, keys).astype(np.float64))
    length = pitch_of(names, keys, LENGTH)
    below = min(names.width, 200) if names else 10
    figure, axes = canvas((length + 70) / 72, (190 + below) / 72, theme)
    cut = cut_first(axes, mass, theme)
    notes = [draw(axes, mass, int(bool(cut)), theme), cut]
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda at, _: short(at)))
    axes.set_ylabel("weight received")
    axes.set_xlim(-0.5, keys - 0.5)
    name_items(axes.xaxis, names, 0, keys, length)
    axes.set_xlabel("key")
    caption(figure, theme, title, *notes)
    return figure


def draw(axes: Any, mass: Array, first: int, theme: Theme) -> str:
    """Draw what keys from the `first` receive, mass (heads, keys); return what the marks mean."""
    mass = mass[:, first:]
    colours, (heads, keys) = COLOURS[theme], mass.shape
    middle = mass.mean(axis=0)
    borders, largest, _ = binned(mass)
    mean = binned(middle)[2] / np.diff(borders)
    pooled = len(mean) < keys
    places = first + (borders[:-1] + borders[1:] - 1) / 2
    of_bin = f" in each {bin_size(borders)} keys" * pooled
    if heads > FEW_HEADS:
        least = mass.min(axis=0) if not pooled else -binned(-mass.min(axis=0))[1]
        axes.fill_between(places, least, largest.max(axis=0), color=colours.faint, alpha=0.6, linewidth=0)
    elif heads > 1 or pooled:
        for own in largest:
            axes.plot(places, own, color=colours.faint, linewidth=1)
    marker = "o" if keys <= 64 else ""
    axes.plot(places, mean, color=colours.bar, linewidth=1.6, marker=marker, markersize=3)
    if heads == 1:
        said = f"blue: mean{of_bin}; grey: largest" if pooled else "sum over queries"
    else:
        each = "least to largest of all heads" if heads > FEW_HEADS else "each head" + ", largest" * pooled
        said = f"blue: mean of {heads} heads{of_bin}; grey: {each}"
    return said + "; linear scale"


def cut_first(axes: Any, mass: Array, theme: Theme) -> str:
    """Set the height of a scale from 0; where the first key would flatten all others, cut it off and say so."""
    first, others = float(mass[:, 0].max()), float(mass[:, 1:].max(initial=0))
    cut = mass.shape[1] > 2 and first > OUTLIER * others > 0
    top = others if cut else max(first, others)
    axes.set_ylim(0, 1.08 * top or 1)
    if not cut:
        return ""
    axes.plot([0], [1], "^", transform=axes.get_xaxis_transform(), color=COLOURS[theme].chosen, clip_on=False)
    own = short(float(mass[:, 0].mean())) + f" on average, up to {short(first)} in a head" * (len(mass) > 1)
    return f"▲ key 0 receives {own}, no other more than {short(others)}: left out, or all others would be flat"
