"""How a GPU's kernel divides attention: a group of threads, what it holds in shared memory, and the tile for a card.

Decides nothing about meaning: every tile gives the same bits. A group of 128 threads has 64 queries; the keys of a
block and then its values pass through one buffer in shared memory, in parts where the card has too little for all.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from clearhead.definition.canonical import BLOCK

ROWS, THREADS = 64, 128  # queries and threads of a group
HALVES = THREADS // ROWS  # threads that weigh the keys of a query
HALF = BLOCK // HALVES  # keys of a block that one of them has
PAD = 4  # numbers between rows in shared memory, so that lanes meet different banks
MAXIMA = 16  # partial maxima of each query's scores in a block
GROUPS = 2  # that a multiprocessor has registers for
RESERVED = 1024  # bytes of shared memory that the driver takes for each group


class Places(NamedTuple):
    """Where things begin in shared memory, in numbers of 4 bytes; `end` is behind the last."""

    queries: int
    buffer: int
    scores: int
    maxima: int
    sums: int
    alphas: int
    betas: int
    end: int


@dataclass(frozen=True)
class CardTile:
    """A tile for one dim of queries, keys and values, by how much of a block lies in shared memory at a time."""

    dim: int
    key_dims: int  # of a block's keys
    value_keys: int  # of a block's values

    @property
    def name(self) -> str:
        """What its kernels' names end with."""
        return f"{self.dim}_{self.key_dims}_{self.value_keys}"

    @property
    def key_parts(self) -> int:
        """In how many parts a block's keys come."""
        return self.dim // self.key_dims

    @property
    def value_parts(self) -> int:
        """In how many parts a block's values come."""
        return BLOCK // self.value_keys

    @property
    def places(self) -> Places:
        """The division of shared memory."""
        buffer = max(BLOCK * (self.key_dims + PAD), self.value_keys * (self.dim + PAD))
        sizes = (ROWS * (self.dim + PAD), buffer, ROWS * (BLOCK + PAD), ROWS * (MAXIMA + PAD), ROWS, ROWS, ROWS)
        return Places(*accumulate(sizes, initial=0))

    @property
    def shared_bytes(self) -> int:
        """Shared memory of a group.

        >>> CardTile(64, 64, 128).shared_bytes
        91904
        """
        return 4 * self.places.end


TILES = (  # of each dim the largest first
    CardTile(32, 32, 128),
    CardTile(64, 64, 128),
    CardTile(64, 32, 64),
    CardTile(96, 96, 128),
    CardTile(96, 32, 64),
    CardTile(128, 64, 64),
    CardTile(128, 32, 32),
)
DIMS = tuple(sorted({tile.dim for tile in TILES}))


def tile_for(dim: int, group_bytes: int, processor_bytes: int) -> CardTile | None:
    """The tile of a dim for a card's shared memory: at most for one group, and of a multiprocessor; None if none fits.

    Two groups on a multiprocessor hide each other's waiting; of tiles that allow equally many, the largest waits least.

    >>> tile_for(64, 232448, 233472), tile_for(64, 166912, 167936), tile_for(128, 101376, 102400)
    (CardTile(dim=64, key_dims=64, value_keys=128), CardTile(dim=64, key_dims=32, value_keys=64),
     CardTile(dim=128, key_dims=32, value_keys=32))
    """
    fitting = [tile for tile in TILES if tile.dim == dim and tile.shared_bytes <= group_bytes]
    return max(fitting, key=lambda tile: min(GROUPS, processor_bytes // (tile.shared_bytes + RESERVED)), default=None)
