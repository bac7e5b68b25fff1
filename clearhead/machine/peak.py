"""How fast the processor multiplies and adds, for `clearhead doctor` and `clearhead bench` to divide by."""

import time

import numpy as np

from clearhead.kernels.abi.tiles import ELEMENTS, tile_for
from clearhead.machine.address import address
from clearhead.machine.compile import KernelSpec, kernels
from clearhead.machine.target import target

STRETCH = 2e-3  # seconds; shorter stretches measure the call


class Peak:
    """One thread's fused multiply-add rate for a dtype on the target in force; `best` grows with every `measure`.

    >>> Peak("float32").measure() > 0
    True
    """

    def __init__(self, dtype: str) -> None:
        place = target()
        tile = tile_for(ELEMENTS[dtype], place.vector_bits, place.registers)
        self.kernel = kernels.get(KernelSpec("peak", tile, place))
        self.scratch = np.full(256, 0.5, dtype)
        self.flops_a_round = 2 * tile.lanes * tile.chains
        self.best = 0.0
        self.rounds = 1000
        while self.stretch() < STRETCH:
            self.rounds *= 2

    def stretch(self) -> float:
        """Seconds of one stretch."""
        start = time.perf_counter()
        self.kernel.entry(None, address(self.scratch), self.rounds)
        return time.perf_counter() - start

    def measure(self) -> float:
        """Measure one stretch more; the best rate so far, in GF/s."""
        self.best = max(self.best, self.rounds * self.flops_a_round / self.stretch() / 1e9)
        return self.best
