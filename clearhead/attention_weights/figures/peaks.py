"""The weights that stand out: most above an even share of their row, found in a pooled picture and then exactly."""

from typing import NamedTuple

import numpy as np

from clearhead.arrays import Array
from clearhead.attention_weights.weights_like import WeightsLike

MOST = 3
STANDS_OUT = 4.0  # times an even share, at least
APART = 0.08  # of a picture's height or width between two


class Peak(NamedTuple):
    """One weight, and how many times an even share of its row it is."""

    query: int
    key: int
    weight: float
    times: float


def peaks(w: WeightsLike, picture: Array, down: Array, across: Array) -> list[Peak]:
    """The weights of one head that are most above an even share, largest first, none near another.

    `picture` shows the largest weight of each pixel, whose borders are `down` and `across`. An even share is 1 by the
    number of keys that the query gives any weight; pixels estimate it, the row itself says it. The first key is left
    out, with its pixels: many heads rest there when they have nothing to look for.
    """
    shown = np.nan_to_num(picture).astype(np.float64)
    above = shown * ((shown > 0) @ np.diff(across))[:, None]
    if across[0] == 0:
        above[:, 0] = 0
    apart = [max(1, int(APART * side)) for side in above.shape]
    found: list[Peak] = []
    while len(found) < MOST:
        r, c = np.unravel_index(above.argmax(), above.shape)
        if above[r, c] < STANDS_OUT:
            break
        if (peak := located(w, down[r : r + 2], across[c : c + 2])).times >= STANDS_OUT:
            found.append(peak)
        above[max(0, r - apart[0]) : r + apart[0] + 1, max(0, c - apart[1]) : c + apart[1] + 1] = 0
    return sorted(found, key=lambda peak: -peak.times)


def located(w: WeightsLike, rows: Array, columns: Array) -> Peak:
    """The largest weight of a pixel."""
    (top, bottom), (left, right) = rows.tolist(), columns.tolist()
    block = np.nan_to_num(w.map(slice(top, bottom), slice(left, right), size=max(bottom - top, right - left)))
    r, c = np.unravel_index(block.argmax(), block.shape)
    row = w.row(top + int(r))
    return Peak(top + int(r), left + int(c), float(block[r, c]), float(block[r, c]) * int(np.count_nonzero(row)))
