"""What a tile asks of memory beside keys and values: its own rows of output, and the queries that come next.

Both are touched row by row and all at once, which is too fast for memory unless it was asked before.
With key i of its first block, a tile asks for its output row i and for query i of the task that its thread takes next.
"""

from __future__ import annotations

from typing import NamedTuple

from clearhead.kernels.abi.tiles import CACHE_LINE
from clearhead.kernels.abi.variant import Variant
from clearhead.kernels.ir.code import Code
from clearhead.kernels.ir.storage import stored_bytes
from clearhead.kernels.ir.values import Int, Pointer, Truth
from clearhead.kernels.parts.frame import CallTable


class Ahead(NamedTuple):
    """How many rows to ask for, and where those of queries and outputs lie."""

    table: CallTable
    rows: Int
    q: Pointer
    y: Pointer

    def only_if(self, condition: Truth) -> Ahead:
        """No row, unless the condition holds."""
        return self._replace(rows=condition.choose(self.rows, self.rows.like(0)))

    def after(self, row: Int) -> Ahead:
        """Without the rows before this one."""
        q, y = self.q + row * self.table.field("query_row"), self.y + row * self.table.field("output_row")
        return Ahead(self.table, self.rows - row, q, y)


def ask_ahead(f: Code, a: Ahead, row: Int, variant: Variant) -> None:
    """Ask for one row of each; a row's elements may lie apart, which asks for less than all of it."""
    rows = a.after(row)
    with f.when(rows.rows > 0):
        for line in f.range(0, a.table.field("query_dim") * stored_bytes(f, variant.storage), CACHE_LINE):
            f.prefetch_line(rows.q + line)
        for line in f.range(0, a.table.field("value_dim") * stored_bytes(f, variant.written), CACHE_LINE):
            f.prefetch_line(rows.y + line, to_write=True)
