"""A block of keys under a fused mask: left out where no query of the tile sees a key, else with the bits of its pairs.

Python tells of some blocks beforehand that they are seen by all or by nobody (`rules.bounds`); the bits of the others
are found when the tile meets them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from clearhead.kernels.ir.code import Code, Emitted
from clearhead.kernels.ir.values import Int, Pointer, Truth, most
from clearhead.kernels.parts.frame import Frame
from clearhead.kernels.parts.mask_bits import See, seen_at
from clearhead.rules.bounds import ALL_HIDDEN, PARTLY_SEEN


class MaskedBlock(NamedTuple):
    """A block of keys under a fused mask."""

    number: Int  # in the table of what is known of blocks
    start: Int  # its first key, counted from the tile's origin
    rows: Int


class SeenRows(NamedTuple):
    """The rows of a block that some query of the tile sees, and their bits: null where every pair is seen."""

    first: Int
    rows: Int
    bits: Pointer


def look(f: Code, frame: Frame, see: Emitted[See], kinds: Pointer, block: MaskedBlock) -> Truth:
    """Find a block's bits, where they must be found; whether nobody sees any of its keys.

    The tile's position tells then which rows are seen.
    """
    position = frame.position()
    entry = kinds + block.number

    (kind,) = f.values_if(kinds.given(), lambda: [f.load_bits(entry, 8).whole()], [f.i64(PARTLY_SEEN)])
    with f.when(kind == PARTLY_SEEN):
        f.call(see, See(frame.table, position, position.read("origin") + block.start, block.rows, frame.space("seen")))
    return kind == ALL_HIDDEN


def bits_from(f: Code, frame: Frame, first: Int) -> Pointer:
    """The bits of a block from a row on, or null if every pair of the block is seen."""
    everything = frame.position().read("seen_all") != 0
    return everything.choose(f.i64(0), seen_at(f, frame.space("seen"), first, 0).address()).pointer()


@contextmanager
def seen_rows(
    f: Code, frame: Frame, see: Emitted[See], kinds: Pointer, block: MaskedBlock, skipped: Int
) -> Iterator[SeenRows]:
    """`with seen_rows(…) as seen`: run only if some query of the tile sees a key of the block after the `skipped`."""
    position = frame.position()
    position.write(seen_first=skipped, seen_stop=block.rows, seen_all=1)
    nothing = look(f, frame, see, kinds, block)
    first, stop = most(position.read("seen_first"), skipped), position.read("seen_stop")
    with f.when((first < stop) & ~nothing):
        yield SeenRows(first, stop - first, bits_from(f, frame, first))
