"""Scales made for what is seen: their ends come from the weights shown, and what lies below them is told in words."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from clearhead.arrays import Array
from clearhead.attention_weights.figures.canvas import COLOURS, Theme
from clearhead.wording import percent

FEW_CELLS = 256  # up to this many weights of a head, colours are linear
UNSEEN = 0.01  # of the weight shown may lie below the floor of a log scale
DECADES = 2.0  # a log scale spans at least so many
LEGEND = 65.0  # points that a bar of colours takes with its labels
APART = 0.15  # of a scale's length between two of its labels, at least


@dataclass(frozen=True)
class Scale:
    """From `floor`, 0 on a linear scale, to `top`; `below` is the share of the weight shown that is under the floor."""

    floor: float
    top: float
    below: float = 0.0

    @property
    def logarithmic(self) -> bool:
        """Whether equal steps are equal factors."""
        return self.floor > 0

    @property
    def norm(self) -> Normalize:
        """The scale as matplotlib wants it for colours."""
        return LogNorm(self.floor, self.top) if self.logarithmic else Normalize(0, self.top)

    @property
    def words(self) -> str:
        """How to read the scale."""
        if not self.logarithmic:
            return f"linear from 0 to {short(self.top)}"
        under = f"; what is less holds {percent(self.below)} of the weight" * (self.below > 0)
        return f"logarithmic from {short(self.floor)} to {short(self.top)}{under}"

    @property
    def ticks(self) -> list[float]:
        """Both ends and round numbers between them, none too near another."""
        if not self.logarithmic:
            return linear_ticks(self.top)
        span = math.log(self.top / self.floor)
        decades = math.ceil(math.log10(self.top / self.floor) / 6)
        exponents = range(math.ceil(math.log10(self.floor)), math.floor(math.log10(self.top)) + 1)
        round_ones = [float(f"1e{n}") for n in exponents if n % decades == 0]
        ends = (self.floor, self.top)
        inner = [x for x in round_ones if all(abs(math.log(x / end)) > APART * span for end in ends)]
        return [self.floor, *inner, self.top]


def linear_ticks(top: float) -> list[float]:
    """0, round numbers, and the top."""
    step = next(s for s in (float(f"{m}e{n}") for n in range(-320, 309) for m in (1, 2, 5)) if top <= 5 * s)
    round_ones = [n * step for n in range(1, 6)]
    return [0.0, *(x for x in round_ones if x < (1 - APART) * top), top]


def scale_of(shown: Array, mass: Array, *, top: float = 0.0, linear: bool = False) -> Scale:
    """The scale for what is `shown` of parts, each of which holds `mass` of the weight, up to `top` if that is more.

    Its floor is the largest of 1, 2 or 5 times a power of 10 below which parts hold at most a hundredth of the mass,
    and at least two decades under the largest weight.
    """
    seen = np.isfinite(shown) & (shown > 0)
    values, held = shown[seen].astype(np.float64), mass[seen].astype(np.float64)
    top = float(values.max(initial=top)) or 1.0
    if linear or not values.size:
        return Scale(0.0, top)
    order = np.argsort(values)
    together = held[order].cumsum()
    first = int(np.searchsorted(together, UNSEEN * together[-1], side="right"))
    floor = round_down(max(min(float(values[order[min(first, len(order) - 1)]]), top / 10**DECADES), 1e-300))
    return Scale(floor, top, float(held[values < floor].sum() / together[-1]))


def round_down(value: float) -> float:
    """The largest of 1, 2 or 5 times a power of 10 that is not above a value."""
    exponent = math.floor(math.log10(value))
    steps = [float(f"{m}e{n}") for n in (exponent - 1, exponent, exponent + 1) for m in (1, 2, 5)]
    return max(step for step in steps if step <= value)


def short(value: float) -> str:
    """A number of a scale, in three digits."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def colour_map(theme: Theme) -> LinearSegmentedColormap:
    """A theme's colours for weights."""
    return LinearSegmentedColormap.from_list("weight", COLOURS[theme].scale)


def legend(figure: Any, image: Any, axes: Any, scale: Scale, theme: Theme, height: float) -> None:
    """Add a bar of a scale's colours, `height` points long, with both ends labelled."""
    colours, wide = COLOURS[theme], figure.get_figwidth() * 72
    extend = "min" if scale.below > 0 else "neither"
    bar = figure.colorbar(
        image, ax=axes, fraction=0.8 * LEGEND / wide, pad=8 / wide, aspect=max(4.0, height / 12), extend=extend
    )
    bar.ax.yaxis.set_major_locator(FixedLocator(scale.ticks))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda at, _: short(at)))
    bar.ax.tick_params(which="both", colors=colours.ink, labelsize=8)
    bar.set_label("weight", color=colours.ink, fontsize=8)
    bar.outline.set_edgecolor(colours.faint)
    bar.solids.set_rasterized(True)
