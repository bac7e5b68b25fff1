"""Which keys each query of a transformers model sees, as intervals found without looking at all pairs.

Nearly all models are causal, with a window perhaps, over packed documents or a padded batch: two numbers for each query
say that. Responsible for those numbers, and for comparing some rows with transformers' own mask function.
"""

import numpy as np

from clearhead.adapters.transformers.mask import Pattern, packed_ids
from clearhead.arrays import Array, Integers
from clearhead.rules.mask_kinds import Causal, Full, Window, conjunction
from clearhead.watched.visible import Visible, visible_band, within_tokens

COMPARED_ROWS = 16  # with transformers' own mask function


def intervals_of(pattern: Pattern) -> Visible | None:
    """What a pattern shows; None if it shows other than intervals of tokens, or other than transformers' function."""
    queries, keys = pattern.queries, pattern.stop
    left, right = None, None
    for factor in conjunction(pattern.rule(0)):
        match factor:
            case Causal():
                right = 0
            case Window():
                left = least(left, factor.left)
                right = least(right, factor.right)
            case Full():
                pass
            case _:
                return None
    band = visible_band(queries, keys, keys - queries, left, right)
    low, high = band.low, band.high
    packed = packed_ids(pattern.function)
    if packed is not None:
        if any(len(ids) != keys for ids in packed) or queries != keys:
            return None
        begins, ends = (np.stack(x) for x in zip(*map(document_bounds, packed), strict=True))
        low, high = np.maximum(low, begins), np.minimum(high, ends)
    tokens = pattern.visible[:1] if packed is None and pattern.visible.all() else pattern.visible
    visible = within_tokens(low, high, tokens)
    rows = np.unique(np.linspace(0, queries - 1, COMPARED_ROWS).astype(np.int64))
    return visible if agrees(visible, pattern, rows) else None


def least(a: int | None, b: int | None) -> int | None:
    """The nearer of two limits, of which None is none."""
    return min((x for x in (a, b) if x is not None), default=None)


def document_bounds(ids: Array) -> tuple[Integers, Integers]:
    """Where the document of each item begins and ends."""
    borders = np.flatnonzero(np.diff(ids, prepend=ids[:1] - 1, append=ids[-1:] - 1))
    lengths = np.diff(borders)
    return np.repeat(borders[:-1], lengths), np.repeat(borders[1:], lengths)


def agrees(visible: Visible, pattern: Pattern, rows: Integers) -> bool:
    """Whether intervals show what transformers' own mask function does, in some rows."""
    key = np.arange(pattern.stop)
    low, high = (x[:, rows, None] for x in (visible.low, visible.high))
    seen = (key >= low) & (key < high) & pattern.visible[:, None]
    return bool((seen == pattern.row_seen(rows).numpy()[:, 0]).all())
