"""Heat maps of weights: one head, its heaviest weights found, and all heads on a sheet."""

import math
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import PcolorImage
from matplotlib.patheffects import withStroke

from clearhead.arrays import Array, ceil_div
from clearhead.attention_weights.figures.canvas import COLOURS, Theme, canvas, caption, drawable, one_head
from clearhead.attention_weights.figures.lettering import Names, both_tokens, name_items, names_of, pitch_of, short_name
from clearhead.attention_weights.figures.peaks import Peak, peaks
from clearhead.attention_weights.figures.profiles import head_names
from clearhead.attention_weights.figures.scales import FEW_CELLS, LEGEND, Scale, colour_map, legend, scale_of, short
from clearhead.attention_weights.weights_like import WeightsLike
from clearhead.errors import InputError
from clearhead.wording import number

KEYS, QUERIES = "key (attended to)", "query (attending)"
PIXELS = 512  # maximum height and width of a heat map
SHEET_PIXELS = 128  # the same for one head on a sheet of heads
SIDE = 380.0  # points of a heat map's longer side, or more where names need it
SLIMMEST = 0.25  # its shorter side, as a part of the longer one, at least
HEAD = 110.0  # points of the longer side of a head on the sheet


def heat(
    w: WeightsLike,
    tokens: Any = None,
    *,
    rows: slice = slice(None),
    columns: slice = slice(None),
    title: str = "",
    theme: Theme = "light",
) -> Figure:
    """Draw one head's weights as a heat map, queries down, keys across; hidden pairs stay blank.

    `w` has shape (queries, keys); `tokens` name its keys, and its queries if there are as many, or are a pair of lists,
    the queries' and the keys'. More than 512 queries or keys are pooled: each pixel shows its largest weight. Up to 256
    weights have linear colours and are printed, in per cent; of more, colours are logarithmic, and the weights most
    above an even share are ringed. The caption tells all of that. Raises InputError or ShapeError.

    >>> from clearhead import weights
    >>> figure = heat(weights(np.eye(3), np.eye(3)), ["a", "b", "c"])
    """
    w = one_head(w)
    picture = w.map(rows, columns, size=PIXELS)
    bounds = [part.indices(size)[:2] for part, size in zip((rows, columns), w.shape, strict=True)]
    if not picture.size:
        raise InputError(f"rows={rows} and columns={columns} of weights {w.shape} select nothing: choose some of each.")
    borders = [pixel_borders(*ends, pixels) for ends, pixels in zip(bounds, picture.shape, strict=True)]
    pooled = any(len(part) <= stop - first for part, (first, stop) in zip(borders, bounds, strict=True))
    few = math.prod(stop - first for first, stop in bounds) <= FEW_CELLS
    scale = scale_of(picture, w.map(rows, columns, size=PIXELS, reduce="sum") if pooled else picture, linear=few)
    tokens_of = both_tokens(tokens, *w.shape)
    down, across = (names_of(part, *ends) for part, ends in zip(tokens_of, bounds, strict=True))
    height, width = sides(bounds, down, across)
    figure, axes = canvas(*figure_size(height, width, down, across), theme)
    image = paint(axes, picture, theme, scale, borders)
    legend(figure, image, axes, scale, theme, height)
    name_items(axes.yaxis, down, *bounds[0], height)
    name_items(axes.xaxis, across, *bounds[1], width)
    axes.set_xlabel(KEYS)
    axes.set_ylabel(QUERIES)
    notes = [f"colours {scale.words}; blank: hidden or\N{NO-BREAK SPACE}0", pooling_note(*borders)]
    if few:
        print_weights(axes, picture, scale, borders, min(height, width) / max(picture.shape), theme)
        notes[0] += "; numbers in per cent"
    else:
        notes.append(ring(axes, peaks(w, picture, *borders), tokens_of, bounds, theme))
    caption(figure, theme, title, *notes)
    return figure


def heads(w: WeightsLike, *, title: str = "", theme: Theme = "light") -> Figure:
    """Draw all heads as small heat maps on one scale, titled with their mean effective number of keys.

    `w` has shape (..., queries, keys). More than 128 queries or keys are pooled as in `heat`, and the caption says so.

    >>> from clearhead import weights
    >>> x = np.zeros((3, 5, 4))
    >>> figure = heads(weights(x, x))
    """
    w = drawable(w)
    queries, keys = w.shape[-2:]
    pictures = w.map(size=SHEET_PIXELS).reshape(-1, min(queries, SHEET_PIXELS), min(keys, SHEET_PIXELS))
    pooled = pictures.shape[1:] != (queries, keys)
    mass = w.map(size=SHEET_PIXELS, reduce="sum").reshape(pictures.shape) if pooled else pictures
    scale = scale_of(pictures, mass, linear=queries * keys <= FEW_CELLS)
    spread = w.summary("effective").effective.reshape(len(pictures), -1).mean(axis=1)
    columns = sheet_columns(w.shape[:-2])
    rows = ceil_div(len(pictures), columns)
    height, width = sides(((0, queries), (0, keys)), None, None, HEAD)
    size = max(4.2, (columns * (width + 10) + 24 + LEGEND) / 72), max(1.9, (rows * (height + 21) + 24) / 72)
    figure, grid = canvas(*size, theme, rows, columns)
    borders = [pixel_borders(0, n, pixels) for n, pixels in zip((queries, keys), pictures.shape[1:], strict=True)]
    names, image = head_names(w.shape[:-2]), None
    for n, axes in enumerate(np.asarray(grid).reshape(-1)):
        if n >= len(pictures):
            axes.set_visible(False)
            continue
        image = paint(axes, pictures[n], theme, scale, borders)
        axes.set_box_aspect(height / width)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(f"{names[n]} · {keys_of(float(spread[n]))}", fontsize=7, color=COLOURS[theme].ink, pad=3)
    legend(figure, image, grid, scale, theme, rows * height)
    figure.supxlabel(KEYS, color=COLOURS[theme].ink, fontsize=9)
    figure.supylabel(QUERIES, color=COLOURS[theme].ink, fontsize=9)
    notes = [
        "head · effective number of keys, mean over queries",
        f"colours {scale.words}; blank: hidden or\N{NO-BREAK SPACE}0",
        pooling_note(*borders),
    ]
    caption(figure, theme, title or "heads", *notes)
    return figure


def keys_of(effective: float) -> str:
    """A number of keys for a narrow title."""
    return f"{short(effective)} key" + "s" * (short(effective) != "1")


def sheet_columns(lead: tuple[int, ...]) -> int:
    """How many heads stand side by side: a layer's own, or a part of them that leaves no gaps, up to 16."""
    total = math.prod(lead)
    if len(lead) > 1:
        return max(n for n in range(1, 17) if lead[-1] % n == 0)
    wanted = max(4, math.ceil(math.sqrt(1.5 * total)))
    if total <= 6:
        return total
    return min(range(wanted, wanted + 4), key=lambda n: -total % n)


def sides(bounds: Any, down: Names | None, across: Names | None, side: float = SIDE) -> tuple[float, float]:
    """Height and width of a map in points: in proportion to its items, but no slimmer than a quarter."""
    queries, keys = (stop - first for first, stop in bounds)
    longer = max(queries, keys)
    height, width = (side * max(SLIMMEST, n / longer) for n in (queries, keys))
    grown = max(pitch_of(down, queries, height) / height, pitch_of(across, keys, width) / width)
    return height * grown, width * grown


def figure_size(height: float, width: float, down: Names | None, across: Names | None) -> tuple[float, float]:
    """Size in inches of a figure whose map is `height` by `width` points."""
    beside = 34 + (down.width if down else 34)
    upright = across is not None and across.width > width / max(1, len(across.texts))
    below = 34 + (across.width if across and upright else 14)
    return max(4.6, (beside + width + 16 + LEGEND) / 72), (below + height + 12) / 72


def pixel_borders(first: int, stop: int, pixels: int) -> Array:
    """The items at which pixels begin, and the end: `Weights.map` pools as evenly as whole items allow."""
    return first + np.arange(pixels + 1) * (stop - first) // pixels


def paint(axes: Any, picture: Array, theme: Theme, scale: Scale, borders: Any = None) -> Any:
    """Draw a picture of weights, each pixel over its own items; exact zeros, mostly hidden pairs, stay blank."""
    shown = np.ma.masked_where(~np.isfinite(picture) | (picture == 0), picture)
    down, across = borders or [np.arange(n + 1) for n in picture.shape]
    options: dict[str, Any] = {"norm": scale.norm, "cmap": colour_map(theme)}
    ends = across[0] - 0.5, across[-1] - 0.5, down[-1] - 0.5, down[0] - 0.5
    if all(len({*np.diff(part)}) == 1 for part in (down, across)):
        return axes.imshow(shown, extent=ends, aspect="auto", interpolation="nearest", **options)
    image = PcolorImage(axes, across - 0.5, down - 0.5, shown, **options)
    image.set_in_layout(False)  # it lies within its axes, and cannot tell a layout its size
    axes.add_image(image)
    axes.set_xlim(*ends[:2])
    axes.set_ylim(*ends[2:])
    return image


def pooling_note(down: Array, across: Array) -> str:
    """Caption for a picture with fewer pixels than weights."""
    sizes = [sorted({*np.diff(part).tolist()}) for part in (down, across)]
    if sizes == [[1], [1]]:
        return ""
    high, wide = (" or ".join(f"{n:,}" for n in size) for size in sizes)
    return f"pooled: each pixel is the largest of {high} × {wide} weights"


def print_weights(axes: Any, picture: Array, scale: Scale, borders: Any, room: float, theme: Theme) -> None:
    """Write each weight that is not 0 on its cell, in per cent."""
    colours, norm = colour_map(theme), scale.norm
    size = min(8.0, max(4.5, room / 2.8))
    for (r, c), value in np.ndenumerate(picture):
        if value > 0:
            red, green, blue, _ = colours(norm(float(value)))
            light = 0.3 * red + 0.59 * green + 0.11 * blue > 0.5
            place = borders[1][c], borders[0][r]
            axes.text(
                *place, hundredths(value), ha="center", va="center", fontsize=size, color="#000" if light else "#fff"
            )


def hundredths(share: float) -> str:
    """A share in per cent in at most four characters; only 0 is written 0, and only 1 as 100."""
    percent = 100 * float(share)
    if percent < 0.1:
        return "<0.1"
    if 99.5 <= percent < 100:
        return ">99"
    return f"{percent:.1f}" if percent < 9.95 else f"{percent:.0f}"


def ring(axes: Any, found: list[Peak], tokens: Any, bounds: Any, theme: Theme) -> str:
    """Ring weights and number the rings; return the list of them."""
    colour, (first, stop) = COLOURS[theme].chosen, bounds[1]
    said = []
    for n, peak in enumerate(found, 1):
        right = peak.key - first < (stop - first) / 2
        outline = [withStroke(linewidth=3, foreground=COLOURS[theme].paper)]
        options = {"mec": colour, "mew": 1.4, "markersize": 11, "clip_on": False, "path_effects": outline}
        axes.plot([peak.key], [peak.query], "o", mfc="none", **options)
        axes.annotate(
            f"{n}",
            (peak.key, peak.query),
            xytext=(9 if right else -9, 0),
            textcoords="offset points",
            ha="left" if right else "right",
            va="center",
            fontsize=8,
            fontweight="bold",
            color=colour,
            path_effects=outline,
        )
        who, whom = (
            f"“{short_name(names[at])}” ({at:,})" if names else f"{kind} {at:,}"
            for kind, names, at in zip(("query", "key"), tokens, (peak.query, peak.key), strict=True)
        )
        said.append(f"{n}: {who} → {whom} {number(peak.weight)}, {short(peak.times)} times an even share")
    if not said:
        return "no weight stands out from an even share of its row"
    return "\n".join(["ringed: most above an even share of the row, off the first key", *said])
