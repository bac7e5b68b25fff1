"""How wide and how far each head looks."""

import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from clearhead.arrays import Array
from clearhead.attention_weights.figures.canvas import COLOURS, Theme, canvas, caption, drawable
from clearhead.attention_weights.figures.fonts import extent
from clearhead.attention_weights.figures.scales import short
from clearhead.attention_weights.weights_like import WeightsLike

PITCHES = (26.0, 9.5)  # points between heads, at most and at least
WIDEST = 1400.0  # points that heads take; of more heads, some are labelled
UNEVEN = 30.0  # a scale is logarithmic if its largest mark is this many times the median


def profile(w: WeightsLike, *, title: str = "", theme: Theme = "light") -> Figure:
    """Draw each head's effective number of keys and mean distance, averaged over queries.

    `w` has shape (..., queries, keys); each mark also shows the middle half of the queries. A scale whose largest mark
    is thirty times the median is logarithmic above 1; its label says so.

    >>> from clearhead import weights
    >>> x = np.zeros((2, 5, 4))
    >>> figure = profile(weights(x, x))
    """
    w = drawable(w)
    summary = w.summary("effective", "distance")
    names = head_names(w.shape[:-2])
    widest = extent(max(names, key=len), 8)[0]
    pitch = min(max(PITCHES[1], min(PITCHES[0], widest + 6, 460 / len(names))), WIDEST / len(names))
    figure, both = canvas(max(5.4, (90 + pitch * len(names)) / 72), 5.2, theme, 2)
    pitch = (figure.get_figwidth() * 72 - 90) / len(names)
    for axes, name, said in zip(
        both, ("effective", "distance"), ("effective keys (e^entropy)", "mean distance, in items"), strict=True
    ):
        draw(axes, np.nan_to_num(summary[name].reshape(len(names), -1).astype(np.float64)), said, theme)
        label_heads(axes, names, pitch, widest)
    both[1].set_xlabel("head")
    caption(figure, theme, title, "dot: mean over queries; dash: median; band: middle half")
    return figure


def draw(axes: Any, values: Array, said: str, theme: Theme) -> None:
    """Draw one number of every head, values (heads, queries)."""
    colours, heads = COLOURS[theme], range(len(values))
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75), axis=1)
    mean = values.mean(axis=1)
    axes.vlines(heads, low, high, color=colours.faint, linewidth=5)
    axes.plot(heads, middle, "_", color=colours.ink, markersize=9)
    axes.plot(heads, mean, "o", color=colours.bar, markersize=5)
    top = float(max(high.max(), mean.max()))
    if top > UNEVEN * float(np.median(mean)):
        axes.set_yscale("symlog", linthresh=1.0, linscale=0.4)
        said += ",\nlogarithmic above 1"
        decades = math.floor(math.log10(top)) + 1
        axes.yaxis.set_major_locator(FixedLocator([0, *(10.0**n for n in range(decades))]))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda at, _: short(at)))
    axes.set_ylabel(said)
    axes.set_ylim(0, 1.08 * top or 1)


def label_heads(axes: Any, names: list[str], pitch: float, widest: float) -> None:
    """Label heads below an axis, `pitch` points apart; of many every second, fifth or tenth."""
    upright = widest + 3 > pitch
    needed = (extent("0", 8)[1] + 3 if upright else widest + 3) / pitch
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1 << 30) if needed <= s)
    axes.set_xticks(range(0, len(names), step), names[::step], rotation=90 if upright else 0, fontsize=8)
    axes.set_xlim(-0.8, len(names) - 0.2)


def head_names(lead: tuple[int, ...]) -> list[str]:
    """Name each head by its index along the leading axes."""
    return [".".join(map(str, at)) or "0" for at in np.ndindex(lead)]
