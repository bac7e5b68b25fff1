"""A tile of queries: what it covers, where it stands, which keys it sees, and the code for its number of vectors.

All kernels enter a tile in this way. Numbers of bytes and keys are read from the call's table.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from clearhead.definition.canonical import BLOCK
from clearhead.kernels.abi.call import TILE
from clearhead.kernels.abi.tiles import DIM_STEP
from clearhead.kernels.ir.code import Code, Emitted
from clearhead.kernels.ir.values import Int, Pointer
from clearhead.kernels.parts.frame import Frame


class TileRows(NamedTuple):
    """Which queries of a head a tile covers, and which keys there are for them."""

    first: Int  # index of its first query
    rows: Int  # how many queries
    shift: Int  # a query's position is its index plus this
    origin: Int  # position of the first key: a packed document's
    keys: Int

    def diagonal(self, frame: Frame) -> Int:
        """The last key that the first query sees, counted from the origin."""
        return self.first + self.shift - self.origin + frame.field("high")

    def left(self, frame: Frame) -> Int:
        """The first key that the first query sees, if there is a window."""
        return self.first + self.shift - self.origin + frame.field("low")


def listed_tile(frame: Frame, number: Int, fields: tuple[str, ...] = TILE) -> tuple[TileRows, Pointer]:
    """A tile of the call's list, and the entry that it was read from."""
    entry = (frame.field("tile_table") + number * (8 * len(fields))).pointer()
    return TileRows(*(entry.entry(n) for n in range(len(TILE)))), entry


def enter(frame: Frame, head: Int, tile: TileRows) -> None:
    """Write down where a tile stands, for rules and masks."""
    frame.position().write(
        batch=head // frame.field("heads"),
        head=head % frame.field("heads"),
        row=tile.first,
        last=tile.first + tile.rows - 1,
        shift=tile.shift,
        origin=tile.origin,
    )


def block_kinds(f: Code, frame: Frame, number: Int) -> Pointer:
    """What is known of each block that a tile may see under a fused mask; null: nothing. The tile has been entered."""
    position, blocks = frame.position(), frame.field("blocks")
    row = position.read("batch") * frame.field("block_batches") + position.read("head") * frame.field("block_heads")
    place = blocks + (row + number * frame.field("block_columns"))
    return (blocks != 0).choose(place, f.i64(0)).pointer()


def number_of_query(frame: Frame, head: Int, tile: TileRows, size: int) -> Int:
    """Where a number of the tile's first query lies in an array of one for each query, in bytes."""
    return (head * frame.field("queries") + tile.first) * size


def unless_null(f: Code, base: Int, offset: Int) -> Pointer:
    """base + offset, or null where `base` is."""
    return (base != 0).choose(base + offset, f.i64(0)).pointer()


def call_for_vectors(f: Code, functions: Mapping[int, Emitted[Any]], queries: Int, arguments: Any) -> None:
    """Call the function for as many vectors as hold the tile's queries."""
    calls = {w: partial(f.call, function, arguments) for w, function in functions.items()}
    f.switch(vectors_of(f, queries), calls)


def vectors_of(f: Code, queries: Int) -> Int:
    """How many vectors hold so many queries."""
    return (queries + (f.lanes - 1)) // f.lanes


def padded(dims: Int) -> Int:
    """Dims rounded up to what tiles step by."""
    return (dims + (DIM_STEP - 1)) // DIM_STEP * DIM_STEP


def near(f: Code, left: Int) -> Int:
    """A window's left edge, counted from a block, as far as it matters to a tile: it then fits into a lane."""
    return left.clamp(-2 * f.tile.queries, 2 * BLOCK)


def floor_to(x: Int, step: int) -> Int:
    """x ≥ 0 rounded down to a multiple of step."""
    return x - x % step
