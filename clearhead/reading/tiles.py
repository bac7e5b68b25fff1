"""Pictures of a matrix at any zoom: tiles of 256 × 256 pixels, each pixel the pooled square of cells it covers.

Nothing is sampled, and a pixel's borders do not depend on the tile or on the strip in which it is computed.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from clearhead.arrays import Array, ceil_div
from clearhead.reading.readings import Sees
from clearhead.reading.selected import Selected

TILE = 256  # pixels
MOST_RINGS = 3  # cells that a strip points out
POOLS = ("max", "sum", "mean")


class Ring(NamedTuple):
    """A cell that is far above an even share: `lift` is its weight times the number of keys its query sees."""

    row: int
    column: int
    weight: float
    lift: float


def deepest(size: int) -> int:
    """The zoom at which a pixel is one cell of a matrix with so many rows or columns.

    >>> deepest(256), deepest(257), deepest(32768)
    (0, 1, 7)
    """
    return max(0, (ceil_div(size, TILE) - 1).bit_length())


def strip(of: Selected, how: str, zoom: int, row: int, column: int, start: int, stop: int) -> Array:
    """Rows `start` to `stop` of a tile's pixels, (stop − start, 256); 0 outside the matrix."""
    queries, keys = of.shape
    cells = 1 << (deepest(max(of.shape)) - zoom)
    first_row, first_column = (row * TILE + start) * cells, column * TILE * cells
    rows = slice(min(first_row, queries), min(first_row + (stop - start) * cells, queries))
    columns = slice(min(first_column, keys), min(first_column + TILE * cells, keys))
    pixels = np.zeros((stop - start, TILE), of.weights.dtype)
    pool = pooled if how in of.commutes else pooled_by_blocks
    for top, height, row_part in whole_and_cut(rows, cells):
        for left, width, column_part in whole_and_cut(columns, cells):
            pixels[top : top + height, left : left + width] = pool(of, how, row_part, column_part, height, width)
    return pixels


def whole_and_cut(part: slice, cells: int) -> Iterator[tuple[int, int, slice]]:
    """The whole pixels of a range, and the one that the matrix's edge cuts: first pixel, pixels, range."""
    whole = (part.stop - part.start) // cells
    border = part.start + whole * cells
    if whole:
        yield 0, whole, slice(part.start, border)
    if border < part.stop:
        yield whole, 1, slice(border, part.stop)


def pooled(of: Selected, how: str, rows: slice, columns: slice, height: int, width: int) -> Array:
    """Equal pixels of a rectangle, pooled head by head and then joined."""
    x = of.weights.map(rows, columns, size=(height, width), reduce=how)  # type: ignore[arg-type]
    picture: Array = x.max(axis=0) if of.join == "max" else x.mean(axis=0)
    return picture


def pooled_by_blocks(of: Selected, how: str, rows: slice, columns: slice, height: int, width: int) -> Array:
    """Equal pixels of a rectangle, of weights that must be joined before they are pooled."""
    gather = np.maximum if how == "max" else np.add
    picture = np.zeros((height, width), of.weights.dtype)
    tall, wide = (rows.stop - rows.start) // height, (columns.stop - columns.start) // width
    step = of.rows_at_once(columns.stop - columns.start)
    for first in range(rows.start, rows.stop, step):
        last = min(first + step, rows.stop)
        block = of.block(slice(first, last), columns).reshape(last - first, width, wide)
        line = block.max(axis=-1) if how == "max" else block.sum(axis=-1)
        gather.at(picture, (np.arange(first, last) - rows.start) // tall, line)
    return picture / (tall * wide) if how == "mean" else picture


def rings(of: Selected, sees: Sees, pixels: Array, zoom: int, row: int, column: int, start: int) -> list[Ring]:
    """The cells of a strip of maxima that are most above an even share, the first key and the query's own aside."""
    queries, keys = of.shape
    cells = 1 << (deepest(max(of.shape)) - zoom)
    down, across = np.arange(len(pixels)) + row * TILE + start, np.arange(TILE) + column * TILE
    seen = np.clip((down + 1) * cells + sees.offset if sees.high == 0 else keys, 1, keys)  # by a pixel's last row
    lift = pixels * np.broadcast_to(seen, len(pixels))[:, None]
    own = (down[:, None] * cells + sees.offset) // cells == across
    lift[own & (sees.high == 0)] = 0
    lift[:, across == 0] = 0
    found = []
    for flat in np.argsort(-lift, axis=None, kind="stable")[:MOST_RINGS]:
        at, over = np.unravel_index(flat, lift.shape)
        if lift[at, over] <= 1:
            break
        first, left = int(down[at]) * cells, int(across[over]) * cells
        block = of.block(slice(first, min(first + cells, queries)), slice(left, min(left + cells, keys)))
        i, j = np.unravel_index(np.argmax(block), block.shape)
        weight, query = float(block[i, j]), first + int(i)
        count = min(keys, query + sees.offset + 1) if sees.high == 0 else keys
        found.append(Ring(query, left + int(j), weight, weight * count))
    return found
