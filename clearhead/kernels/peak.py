"""What the processor can do at most: nothing but fused multiply-adds, as many at a time as there are registers.

`machine.peak` divides by it. It is called like any, `i64 peak(table, scratch, budget)`, for `budget` rounds.
"""

import llvmlite.ir as ir

from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.abi.variant import Variant
from clearhead.kernels.ir.code import Function
from clearhead.kernels.ir.values import Int, Vector, fma
from clearhead.kernels.parts.task_queue import Kernel


def peak(tile: Tile, _: Variant) -> ir.Module:
    """Write the loop; the sums tend to 1 (x ← ½·x + ½), so they neither overflow nor become subnormal."""
    module = ir.Module("clearhead.peak")
    f = Function(module, tile, "peak", Kernel, result=True, exported=True)
    scratch, budget = f.arguments.scratch, f.arguments.budget
    half = f.load(scratch)  # from memory, so that the compiler cannot work the sums out itself

    def step(_: Int, sums: list[Vector]) -> list[Vector]:
        return [fma(x, half, half) for x in sums]

    sums = f.loop(0, budget, 1, step, [f.constant(float(n)) for n in range(tile.chains)])
    total = sums[0]
    for x in sums[1:]:
        total = total + x
    f.store(total, scratch + tile.vector_bits // 8)
    f.finish(f.i64(0))
    return module
