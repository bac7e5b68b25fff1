"""Carried sums: a fold over stretches of keys beside one call over all of them, by processor time.

    python bench/pieces.py [--rounds 15]

One thread, in turns, in alternating order; the median of the rounds' ratios counts, for other work on the machine
slows both alike. The fold's copies, its launches and the division at the end are included.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from clearhead import attend, causal, partial

SHAPES = (  # queries, keys, keys in a stretch, dim
    (2048, 2048, 2048, 64), (2048, 8192, 2048, 64), (4096, 16384, 2048, 64), (4096, 16384, 4096, 64),
    (2048, 8192, 2048, 128),
)  # fmt: skip
MOST = 1.05  # a fold takes at most so much of one call's time


def seconds(call: Callable[[], object]) -> float:
    """Processor time of one call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def ratio(queries: int, keys: int, stretch: int, dim: int, rounds: int) -> tuple[float, float]:
    """The fold's time by that of one call: the median of the rounds, and of the least times."""
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((n, dim)).astype(np.float32) for n in (queries, keys, keys))
    first = keys - queries

    def whole() -> np.ndarray:
        return attend(q, k, v, mask=causal(at=first), threads=1).output

    def fold() -> np.ndarray:
        total = partial(q, k[:stretch], v[:stretch], mask=causal(at=first), threads=1)
        for start in range(stretch, keys, stretch):
            total = total.then(k[start : start + stretch], v[start : start + stretch])
        return total.finish().output

    assert np.array_equal(whole(), fold())
    times = []
    for n in range(rounds):
        order = (whole, fold) if n % 2 else (fold, whole)
        taken = {call.__name__: seconds(call) for call in order}
        times.append((taken["whole"], taken["fold"]))
    plain, carried = zip(*times, strict=True)
    return statistics.median(b / a for a, b in times), min(carried) / min(plain)


def main() -> None:
    """Measure all shapes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    for queries, keys, stretch, dim in SHAPES:
        median, least = ratio(queries, keys, stretch, dim, rounds)
        verdict = "PASS" if median <= MOST else "MISS"
        print(
            f"{verdict} {queries} × {keys} × {dim}, {stretch} keys a stretch: {median:.3f} × one call "
            f"(least times {least:.3f}), at most {MOST}",
            flush=True,
        )


if __name__ == "__main__":
    main()
