"""The processor's peak multiply-add rate, with which `clearhead doctor` and `clearhead bench` compare."""

import sys
import time

import numpy as np

from clearhead.kernels.abi.tiles import ELEMENTS, tile_for
from clearhead.machine.address import address
from clearhead.machine.compile import KernelSpec, kernels
from clearhead.machine.target import target

MIN_SECONDS = 2e-3  # seconds; shorter runs would measure the call overhead
# Windows counts processor time in ticks of 16 ms.
thread_time = time.perf_counter if sys.platform == "win32" else time.thread_time


class Peak:
    """One thread's fused multiply-add rate for a dtype on the current target; `best` is the maximum so far.

    >>> Peak("float32").measure() > 0
    True
    """

    def __init__(self, dtype: str) -> None:
        current = target()
        tile = tile_for(ELEMENTS[dtype], current.vector_bits, current.registers)
        self.kernel = kernels.get(KernelSpec("peak", tile, current))
        self.scratch = np.full(256, 0.5, dtype)
        self.flops_per_round = 2 * tile.lanes * tile.chains
        self.best = 0.0
        self.rounds = 1000
        while min(self.time_run() for _ in range(3)) < MIN_SECONDS:  # one may be disturbed, and seem long enough
            self.rounds *= 2

    def time_run(self) -> float:
        """Seconds of processor time for one run: what else the machine does is not in it."""
        start = thread_time()
        self.kernel.entry(None, address(self.scratch), self.rounds)
        return thread_time() - start

    def measure(self) -> float:
        """Measure one more run; returns the best rate so far, in GF/s."""
        self.best = max(self.best, self.rounds * self.flops_per_round / self.time_run() / 1e9)
        return self.best
