"""What a function of a kernel is called with: the call's table, its thread's scratch memory, a tile's position there.

Python writes the table (`abi.call`, `abi.gradient_call`), whose fields also say where in scratch memory what is kept.
"""

from typing import NamedTuple

import llvmlite.ir as ir

from clearhead.kernels.abi.call import PLACE, SWEEP
from clearhead.kernels.abi.gradient_call import FIELDS
from clearhead.kernels.ir.code import Code
from clearhead.kernels.ir.values import Float, Int, Pointer

FIELD_NUMBER = {name: n for n, name in enumerate(FIELDS)}  # the backward's fields begin with the forward's


class CallTable(Pointer):
    """One call as a table of 64-bit integers."""

    __slots__ = ()

    def field(self, name: str) -> Int:
        """One of its fields."""
        return self.entry(FIELD_NUMBER[name])

    def scale(self, f: Code) -> Float:
        """The scale, rounded to the element type."""
        bits = f.build.bitcast(self.field("scale").ir, ir.DoubleType())
        return Float(f.build, bits if f.element.bytes == 8 else f.build.fptrunc(bits, f.scalar))

    def parameters(self) -> Pointer:
        """Where the constants and arrays of fused rules stand in the table."""
        return self + self.field("parameters") * 8


class TilePosition(Pointer):
    """Where a tile of queries stands: written when the tile begins, read by the rules and masks that depend on it."""

    __slots__ = ()

    def read(self, name: str) -> Int:
        """One of its numbers."""
        return self.entry(PLACE.index(name))

    def write(self, **numbers: Int | int) -> None:
        """Set some of its numbers."""
        for name, number in numbers.items():
            self.set_entry(PLACE.index(name), number)


class Frame(NamedTuple):
    """The call's table and the thread's scratch memory."""

    table: CallTable
    scratch: Pointer

    def field(self, name: str) -> Int:
        """One field of the table."""
        return self.table.field(name)

    def space(self, name: str) -> Pointer:
        """Where something lies in scratch memory."""
        return self.scratch + self.field(f"at_{name}")

    def position(self) -> TilePosition:
        """Where the tile at work stands."""
        return TilePosition(self.scratch.build, self.space("place").ir)


def sweep_field(frame: Frame, name: str) -> Int:
    """A number of the sweep's own table."""
    return frame.field("sweep").pointer().entry(SWEEP.index(name))
