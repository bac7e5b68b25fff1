"""Rows of queries, keys or values as a block reads them: dense floats, in place where they are so, else copied."""

from dataclasses import dataclass
from typing import NamedTuple, Self

import llvmlite.ir as ir

from clearhead.definition.canonical import BLOCK
from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.abi.variant import Variant
from clearhead.kernels.ir.code import Code, Emitted
from clearhead.kernels.ir.values import Int, Pointer
from clearhead.kernels.parts.bfloat16_dot import PairValues, write_pair_values
from clearhead.kernels.parts.frame import Frame
from clearhead.kernels.parts.packing import PackRows, UnpackKeys, write_pack_rows, write_unpack_keys


class Rows(NamedTuple):
    """Dense rows in memory."""

    base: Pointer
    stride: Int
    size: Int  # of a row, in bytes

    def at(self, row: Int) -> Pointer:
        """Where a row begins."""
        return self.base + row * self.stride


class Wanted(NamedTuple):
    """Some rows of an operand, of `dims` numbers, to be made `width` numbers long with zeros."""

    base: Pointer
    start: Int
    rows: Int
    dims: Int
    width: Int


def dense_rows(
    f: Code, frame: Frame, pack: Emitted[PackRows], name: str, wanted: Wanted, copies: str, *, narrow: bool
) -> Rows:
    """Rows of the operand of this name: always copied, to the space of name `copies`, if they are stored `narrow`."""
    row, element = frame.field(f"{name}_row"), frame.field(f"{name}_element")
    place, copy = wanted.base + wanted.start * row, frame.space(copies)
    size = wanted.width * f.element.bytes
    packed = PackRows(place, row, element, wanted.rows, wanted.dims, wanted.width, copy)
    if narrow:
        f.call(pack, packed)
        return Rows(copy, size, size)
    in_place = (element == f.element.bytes) & (wanted.dims == wanted.width)
    with f.when(~in_place):
        f.call(pack, packed)
    return Rows(in_place.choose(place, copy), in_place.choose(row, size), size)


@dataclass(frozen=True)
class BlockRows:
    """A module's functions for the rows of a block of keys, wherever those lie."""

    variant: Variant
    pack: Emitted[PackRows]
    unpack_keys: Emitted[UnpackKeys] | None  # from a cache's pages
    pair_values: Emitted[PairValues] | None  # bfloat16 values, multiplied as they are

    @classmethod
    def write(cls, module: ir.Module, tile: Tile, variant: Variant) -> Self:
        """Write them into a module."""
        return cls(
            variant,
            pack=write_pack_rows(module, tile, variant),
            unpack_keys=write_unpack_keys(module, tile, variant) if variant.paged else None,
            pair_values=write_pair_values(module, tile) if variant.native else None,
        )

    def keys(self, f: Code, frame: Frame, wanted: Wanted) -> Rows:
        """The keys of a block."""
        base, start, rows, dims, _ = wanted
        if self.unpack_keys is not None:
            page, inside = base.entry(start // BLOCK).pointer(), start % BLOCK
            copy, size = frame.space("keys"), dims * f.element.bytes
            f.call(self.unpack_keys, UnpackKeys(page, inside, rows, dims, copy))
            return Rows(copy, size, size)
        if self.variant.native:
            row = frame.field("key_row")
            return Rows(base + start * row, row, dims * f.element.bytes)
        return dense_rows(f, frame, self.pack, "key", wanted, "keys", narrow=bool(self.variant.storage))

    def values(self, f: Code, frame: Frame, wanted: Wanted) -> Rows:
        """The values of a block."""
        base, start, rows, dims, width = wanted
        row, size = frame.field("value_row"), width * f.element.bytes
        if self.variant.paged:
            return self.page_values(f, frame, wanted)
        if self.pair_values is not None:
            copy = frame.space("values")
            f.call(self.pair_values, PairValues(base + start * row, row, rows, dims, copy))
            return Rows(copy, size, size)
        return dense_rows(f, frame, self.pack, "value", wanted, "values", narrow=bool(self.variant.storage))

    def page_values(self, f: Code, frame: Frame, wanted: Wanted) -> Rows:
        """The values of a block in its page: in place unless stored narrower; scales of 8 bits follow the rows."""
        pages, start, rows, dims, width = wanted
        row, element, size = frame.field("value_row"), frame.field("value_element"), width * f.element.bytes
        page, inside = pages.entry(start // BLOCK).pointer(), start % BLOCK
        place = page + inside * row
        if not self.variant.kept:
            return Rows(place, row, size)
        scales = page + row * BLOCK + inside * f.element.bytes if self.variant.int8 else None
        copy = frame.space("values")
        f.call(self.pack, PackRows(place, row, element, rows, dims, width, copy, scales))
        return Rows(copy, size, size)
