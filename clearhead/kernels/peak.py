"""What the processor can do at most: nothing but fused multiply-adds, as many at a time as there are registers.

`machine.peak` divides by it. It is called like any, `i64 peak(table, scratch, budget)`, for `budget` rounds.
"""

import llvmlite.ir as ir

from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.abi.variant import Variant
from clearhead.kernels.ir.simd import Function, Value, i64, pointer


def peak(tile: Tile, _: Variant) -> ir.Module:
    """Write the loop; the sums tend to 1 (x ← ½·x + ½), so they neither overflow nor become subnormal."""
    module = ir.Module("clearhead.peak")
    f = Function(module, "peak", {"table_p": pointer, "scratch_p": pointer, "budget": i64}, tile, result=i64)
    _, scratch, budget = f.arguments
    half = f.load(scratch)  # from memory, so that the compiler cannot work the sums out itself

    def step(_: Value, sums: list[Value]) -> list[Value]:
        return [f.fma(x, half, half) for x in sums]

    sums = f.loop(0, budget, 1, step, [f.constant(float(n)) for n in range(tile.chains)])
    total = sums[0]
    for x in sums[1:]:
        total = f.block.fadd(total, x)
    f.store(total, f.at(scratch, tile.vector_bits // 8))
    f.finish(f.i64(0))
    return module
