"""What one call is given, as two values: operands (arrays) and rules (everything that says what to do with them)."""

from typing import NamedTuple

from clearhead.arrays import Array
from clearhead.cache.pages import Paged
from clearhead.rules.masks import CAUSAL, Mask
from clearhead.rules.scores import ScoreLike

new = tuple.__new__  # makes one of these in half the time of its own constructor, which a small call feels


class Operands(NamedTuple):
    """Queries, keys and values; with `pages`, k and v have the shapes of a cache whose numbers lie there."""

    q: Array
    k: Array
    v: Array
    pages: Paged | None = None


class Rules(NamedTuple):
    """What `attention`'s keyword arguments of these names say."""

    mask: Mask = CAUSAL
    score: ScoreLike = ()
    sink: Array | None = None
    scale: float | None = None
    precision: str = "exact"
