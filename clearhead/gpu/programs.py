"""The kernels that there are for each tile: what each is called with, and who writes it.

Windows and sinks have a forward kernel of their own, so that the plain one stays as cards have confirmed it. With score
rules or masks beyond a band, each kernel is written anew for these, and gets their numbers besides.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from clearhead.gpu import query_sums, sweep, tiled
from clearhead.gpu.call import Call, SweepCall
from clearhead.gpu.thread import Floats, Index, Thread
from clearhead.gpu.tile import GROUPS, THREADS, CardTile
from clearhead.kernels.abi.variant import PLAIN_VARIANT, Variant
from clearhead.kernels.ir.parameters import machine_parameters
from clearhead.kernels.ir.values import Int, Vector

CARDS_WITH_RULES = ""  # those that have confirmed kernels with rules
OF_RULES = frozenset({"number", "siblings", "row", "shift"})  # parameters of kernels with rules
C_KINDS = {Floats: ctypes.c_void_p, Index: ctypes.c_int, Int: ctypes.c_int64, Vector: ctypes.c_float}


class Kind(NamedTuple):
    """What all tiles' kernels of a kind share."""

    title: str  # what they compute
    parameters: type[tuple[Any, ...]]
    present: frozenset[str]  # the optional parameters that they have
    write: Callable[[Thread[Any], CardTile, Variant], str]
    cards: str = ""  # those that have confirmed their bits: card, driver, date


KINDS = {
    "attention": Kind(
        "attention", Call, frozenset(), tiled.write, "NVIDIA H100 80GB HBM3 and H200, driver 580.159.04, 2026-11-27"
    ),
    "windowed": Kind("attention with windows and sinks", Call, frozenset({"low", "sink"}), tiled.write),
    "weights": Kind("weights and scores", SweepCall, frozenset({"target_row", "weighed"}), sweep.write_weights),
    "numbers": Kind(
        "numbers of each query",
        SweepCall,
        frozenset({"target_kind", "offset", "near", "top", "top_weights", "top_keys"}),
        sweep.write_numbers,
    ),
    "picture": Kind(
        "maps by the largest weight", SweepCall, frozenset({"rows", "height", "width"}), sweep.write_picture
    ),
    "received": Kind(
        "what each key receives in total", SweepCall, frozenset({"lanes", "vectors"}), query_sums.write_received
    ),
    "pooled": Kind(
        "maps by sum or mean",
        SweepCall,
        frozenset({"rows", "height", "width", "lanes", "vectors"}),
        query_sums.write_pooled,
    ),
}


@dataclass(frozen=True)
class Program:
    """A kind of kernel for a tile, and for rules."""

    kind: str
    tile: CardTile
    variant: Variant = PLAIN_VARIANT

    @property
    def name(self) -> str:
        """The kernel's name."""
        return f"{self.kind}_{self.tile.name}"

    @property
    def present(self) -> frozenset[str]:
        """The optional parameters that it has."""
        own = KINDS[self.kind].present
        return own if self.variant == PLAIN_VARIANT else own | OF_RULES

    @property
    def arguments(self) -> Sequence[Any]:
        """The C types of a launch's arguments."""
        declared = machine_parameters(KINDS[self.kind].parameters, self.present)
        return [*(C_KINDS[parameter.kind] for parameter in declared), *[ctypes.c_int64] * self.variant.entries]

    def thread(self, kind: type[Thread[Any]] = Thread) -> Thread[Any]:
        """A thread to write the kernel for."""
        return kind(self.name, KINDS[self.kind].parameters, THREADS, GROUPS, self.present, entries=self.variant.entries)

    def write(self, kind: type[Thread[Any]] = Thread) -> str:
        """The kernel's IR."""
        return KINDS[self.kind].write(self.thread(kind), self.tile, self.variant)
