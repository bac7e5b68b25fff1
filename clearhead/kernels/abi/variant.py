"""What a kernel does beyond plain causal attention: fused rules and the way its operands are stored.

Everything here changes code, so it is part of a kernel's spec and of the cache's key; numbers and addresses are not:
expressions name the call's constants and arrays by number.
"""

from dataclasses import dataclass

from clearhead.rules.expression import Expression, parts


@dataclass(frozen=True)
class Share:
    """What a pair adds to the gradient of a rule's array: where the rule reads, and the derivative by what it reads.

    `target` is the number of the gradient among the kernel's arrays; without it, the index is one for a whole head,
    and the pairs' sum is all that is asked. `way` is how elements are found: "each" pair asks for its own, "keys" lie
    one behind the other, a "diagonal" (one distance between query and key) has one.
    """

    load: Expression
    coefficient: Expression
    target: int | None = None
    way: str = "each"


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
    int8: bool = False  # of 8 bits, each row with its scale
    native: bool = False  # bfloat16 operands are multiplied as they are
    consumers: tuple[str, ...] = ()  # what becomes of the weights, in kernels that sweep over them
    storage: str = ""  # operands' dtype, if narrower than the computation's
    wide: bool = False  # the result is as wide as the computation even then
    slope: Expression | None = None  # backward: the derivative of what becomes of a score, by the score
    shares: tuple[Share, ...] = ()  # and those by the numbers that it reads
    long: bool = False  # whole numbers in lanes are of 64 bits, though floats are of 32

    @property
    def kept(self) -> str:
        """The dtype of keys and values in memory, if it is narrower than the computation's."""
        return "int8" if self.int8 else self.storage

    @property
    def written(self) -> str:
        """The dtype of the result, if it is narrower than the computation's."""
        return "" if self.wide else self.storage

    @property
    def window_edge(self) -> tuple[str, ...]:
        """The parameter that functions have only where keys end on the left too."""
        return ("left",) if self.windowed else ()

    @property
    def staged(self) -> tuple[Share, ...]:
        """The shares of which a whole tile is found before it is added."""
        return tuple(share for share in self.shares if share.target is not None and share.way != "each")

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


PLAIN = Variant()
