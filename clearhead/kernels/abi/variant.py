"""What a kernel does beyond plain causal attention: fused rules and the way its operands are stored.

Everything here changes code, so it is part of a kernel's spec and of the cache's key; numbers and addresses are not:
expressions name the call's constants and arrays by number.
"""

from dataclasses import dataclass
from typing import Literal

from clearhead.rules.expression import Expression, parts

Wanted = Literal["all", "queries", "keys"]


@dataclass(frozen=True)
class Contribution:
    """What a pair adds to the gradient of a rule's array: where the rule reads, and the derivative by what it reads.

    `target` is the number of the gradient among the kernel's arrays; without it, the index is the same for a whole
    head, and only the sum over its pairs is kept. `scatter` says how elements are found: a "row" of elements belongs to
    consecutive keys, a "diagonal" (all pairs of one distance) has one element, or each pair finds its own "element".
    """

    load: Expression
    coefficient: Expression
    target: int | None = None
    scatter: Literal["row", "diagonal", "element"] = "element"


@dataclass(frozen=True)
class Variant:
    """One kernel's features; the default is the plain kernel."""

    score: Expression | None = None  # what becomes of a score
    mask: Expression | None = None  # what is seen, beyond a band around the diagonal
    arrays: tuple[tuple[str, int], ...] = ()  # dtype and number of axes of each array that the expressions read
    windowed: bool = False  # keys may end on the left too
    packed: bool = False  # tiles come from a table, each with its own document
    sink: bool = False  # a number per head joins the denominator
    paged: bool = False  # keys and values lie in a cache's pages
    int8: bool = False  # keys and values are stored in 8 bits, each row with its scale
    native: bool = False  # bfloat16 operands are multiplied as they are
    consumers: tuple[str, ...] = ()  # what becomes of the weights, in kernels that sweep over them
    storage: str = ""  # operands' dtype, if narrower than the computation's
    unrounded: bool = False  # the result has the computation's dtype even then
    score_derivative: Expression | None = None  # backward: of what becomes of a score, by the score
    contributions: tuple[Contribution, ...] = ()  # backward: to the gradients of the arrays that rules read
    gradients: Wanted = "all"  # backward: which are summed
    carried: bool = False  # sums begin as an earlier stretch left them; the forward's are left undivided
    key_rows: tuple[Expression, ...] = ()  # the score's loads of arrays whose rows lie along the keys, dense
    long: bool = False  # whole numbers in lanes have 64 bits, though floats have 32

    @property
    def kept(self) -> str:
        """The dtype of keys and values in memory, if it is narrower than the computation's."""
        return "int8" if self.int8 else self.storage

    @property
    def written(self) -> str:
        """The dtype of the result, if it is narrower than the computation's."""
        return "" if self.unrounded else self.storage

    @property
    def window_edge(self) -> tuple[str, ...]:
        """The parameter that functions have only where keys end on the left too."""
        return ("left",) if self.windowed else ()

    @property
    def buffered(self) -> tuple[Contribution, ...]:
        """The contributions of which a whole tile is computed before it is added."""
        return tuple(c for c in self.contributions if c.target is not None and c.scatter != "element")

    @property
    def constants(self) -> int:
        """How many constants the expressions name."""
        return max(((e.array or 0) + 1 for e in self.parameters()), default=0)

    def parameters(self) -> list[Expression]:
        """All places where the expressions name a constant."""
        whole = [e for e in (self.score, self.mask) if e is not None]
        return [part for e in whole for part in parts(e) if part.op == "parameter"]

    def at_array(self, number: int) -> int:
        """Where an array's entry stands among the call's parameters: its address, then size and stride of each axis."""
        return self.constants + sum(1 + 2 * axes for _, axes in self.arrays[:number])

    @property
    def entries(self) -> int:
        """How many numbers the call's parameters are."""
        return self.at_array(len(self.arrays))


PLAIN_VARIANT = Variant()
