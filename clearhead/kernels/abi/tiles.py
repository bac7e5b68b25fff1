"""Elements and tile sizes: how many queries, keys and dims a kernel holds in registers at once.

Decides nothing about meaning: every lane is a scalar program of its own (see `definition.canonical`), so any tile gives
the same bits. The numbers are measured; a wrong tile loses up to a third of the speed.
"""

from dataclasses import dataclass

from clearhead.arrays import ceil_div

DIM_STEP = 16  # value dims are padded to a multiple of this
CACHE_LINE = 64  # bytes


def padded(dim: int) -> int:
    """A dim rounded up to what kernels step by."""
    return ceil_div(dim, DIM_STEP) * DIM_STEP


@dataclass(frozen=True)
class Element:
    """A float type."""

    name: str  # LLVM's name for it, as in llvm.fma.v16f32
    bytes: int
    lowest: float  # the most negative finite value


F32 = Element("f32", 4, -float.fromhex("0x1.fffffep127"))
F64 = Element("f64", 8, -float.fromhex("0x1.fffffffffffffp1023"))
ELEMENTS = {"float32": F32, "float64": F64}
STORED = {"float16": 2, "bfloat16": 2}  # bytes of operands that are widened to float32


@dataclass(frozen=True)
class Tile:
    """One kernel's register blocking: `vectors` of queries make a full tile; shorter tiles use fewer.

    Scores are summed for `keys[w − 1]` keys by w vectors of queries at once (two sums each), values for `rows[n − 1]`
    queries by n vectors of dims; every number of rows divides the number of queries.
    """

    element: Element
    vector_bits: int
    vectors: int
    keys: tuple[int, ...]
    rows: tuple[int, ...]

    @property
    def lanes(self) -> int:
        """Elements in one vector."""
        return self.vector_bits // (8 * self.element.bytes)

    @property
    def queries(self) -> int:
        """Queries in a full tile."""
        return self.vectors * self.lanes

    @property
    def chains(self) -> int:
        """Independent sums that hide a multiply-add's latency and still fit in the registers."""
        return 24 if self.vectors == 4 else 12

    @property
    def row(self) -> int:
        """Bytes of one row of a tile: one number for each of its queries."""
        return self.queries * self.element.bytes


def tile_for(element: Element, vector_bits: int, registers: int) -> Tile:
    """The measured tile for a vector width and a number of vector registers.

    >>> tile_for(F32, 512, 32).queries, tile_for(F64, 256, 16).queries
    (64, 12)
    """
    if registers >= 32:
        return Tile(element, vector_bits, 4, keys=(8, 4, 2, 2), rows=(16, 8, 4, 4))
    return Tile(element, vector_bits, 3, keys=(4, 2, 2), rows=(12, 6))
