"""The arguments of one call as two values: operands (the arrays) and rules (how to attend)."""

from typing import NamedTuple

from clearhead.arrays import Array
from clearhead.cache.pages import Paged
from clearhead.rules.mask_kinds import Mask
from clearhead.rules.masks import CAUSAL
from clearhead.rules.scores import ScoreLike

new = tuple.__new__  # half the time of the generated constructor, which matters in small calls


class Operands(NamedTuple):
    """Queries, keys and values. With `pages`, k and v have the shapes of a cache, whose values are in the pages."""

    q: Array
    k: Array
    v: Array
    pages: Paged | None = None


class Rules(NamedTuple):
    """The keyword arguments of `attention` of the same names."""

    mask: Mask = CAUSAL
    score: ScoreLike = ()
    sink: Array | None = None
    scale: float | None = None
    precision: str = "exact"
