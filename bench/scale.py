"""One core's rate at long lengths, in processor time: what `scripts/simulate` takes for a machine's.

    python bench/scale.py [--lengths 8192 16384 32768] [--rounds 7]

Causal attention, (1, 1, length, 64) float32, forward and forward with gradients. All lengths and the peak in turns, in
one process on one core; the median of all rounds, and their range, so that one disturbed run says little. Each pair
that is seen counts 4·64 operations forward and 14·64 with gradients: two products, or seven.
"""

import argparse
import os
import time
from collections.abc import Callable
from statistics import median

if hasattr(os, "sched_setaffinity"):  # before any import that counts cores to make its threads
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import numpy as np

from clearhead import attend, attention, causal
from clearhead.machine.peak import Peak

DIM = 64


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[8192, 16384, 32768])
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    cases = {length: calls_of(length) for length in options.lengths}
    for calls in cases.values():
        for call in calls:
            call()  # compiles, and touches all memory
    peak = Peak("float32")
    rates: dict[tuple[int, int], list[float]] = {}
    for _ in range(options.rounds):
        for length, calls in cases.items():
            peak.measure()
            pairs = length * (length + 1) / 2
            for n, (call, products) in enumerate(zip(calls, (2, 7), strict=True)):
                rates.setdefault((length, n), []).append(products * 2 * DIM * pairs / seconds(call) / 1e9)
    print(f"peak {peak.best:.0f} GF/s\n| length | forward, GF/s (range) | of peak | with gradients |")
    print("|---|---|---|---|")
    for length in cases:
        forward, both = (rates[length, n] for n in (0, 1))
        print(f"| {length} | {spread(forward)} | {median(forward) / peak.best:.2f} | {spread(both)} |")


def calls_of(length: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """The forward call, and the one with gradients."""
    rng = np.random.default_rng(length)
    q, k, v = (rng.standard_normal((1, 1, length, DIM), np.float32) for _ in range(3))
    return (
        lambda: attention(q, k, v, mask=causal(), threads=1),
        lambda: attend(q, k, v, mask=causal(), threads=1).backward(v),
    )


def seconds(call: Callable[[], object]) -> float:
    """Processor seconds of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def spread(numbers: list[float]) -> str:
    """Median and range."""
    return f"{median(numbers):.0f} ({min(numbers):.0f} to {max(numbers):.0f})"


if __name__ == "__main__":
    main()
