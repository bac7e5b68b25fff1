"""How far back a mask lets queries see, where its own numbers say so.

A cache with a window needs to know: `engine.execute` refuses masks that reach further.
"""

import math

from clearhead.rules.masks import Causal, Full, Mask, Or, Prefix, Stepped, Window, conjunction


def reach(mask: Mask) -> float:
    """How many keys before its own position a query may see at most; infinity without limit, 0 if unknown.

    Known of `causal`, `full`, `window`, `dilated` and `prefix`, of what `&` makes of the first four, and of `|`, which
    reaches as far as one of its sides. Unknown of tables, functions, documents and what `~` makes.

    >>> from clearhead.rules.masks import causal, dilated, prefix, where, window
    >>> reach(causal()), reach(causal() & window(9)), reach(window(4) | window(9)), reach(window(9) | prefix(4))
    (inf, 9, 9, inf)
    >>> reach(dilated(4) & window(10)), reach(where(lambda batch, head, query, key: key > 5) & window(9))
    (8, 0)
    """
    match mask:
        case Or(a, b):
            return max(reach(a), reach(b))
        case Prefix(length):
            return math.inf if length else 0
    factors = [factor for factor in conjunction(mask) if not shows_all(factor)]
    if len(factors) == 1 and factors[0] is not mask:
        return reach(factors[0])
    if not all(isinstance(factor, Causal | Window | Stepped) for factor in factors):
        return 0
    before = [factor.left for factor in factors if isinstance(factor, Window) and factor.left is not None]
    if not before:
        return math.inf
    step = math.lcm(*(factor.step for factor in factors if isinstance(factor, Stepped)))
    return min(before) // step * step


def shows_all(mask: Mask) -> bool:
    """Whether a mask hides nothing, and at most says where the queries stand."""
    return isinstance(mask, Full) or (isinstance(mask, Window) and mask.left is mask.right is None)
