"""Carried sums beside plain calls, by processor time: one stretch of keys, and a fold over several.

    python bench/pieces.py [--rounds 15]

One thread, in turns, in alternating order; the median of the rounds' ratios counts, for other work on the machine
slows both alike. A stretch is `Partial.then` beside `attend` over the same keys; a fold has its first sums and the
division at the end besides, beside one call over all keys.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np

from clearhead import Attended, attend, causal, full, partial

SHAPES = (  # queries, keys, keys in a stretch, dim
    (2048, 2048, 2048, 64), (2048, 8192, 2048, 64), (4096, 16384, 2048, 64), (4096, 16384, 4096, 64),
    (2048, 8192, 2048, 128),
)  # fmt: skip
MOST = 1.05


def seconds(call: Callable[[], object]) -> float:
    """Processor time of one call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def ratio(plain: Callable[[], object], carried: Callable[[], object], rounds: int) -> tuple[float, float]:
    """The time of carried sums by that of the plain call: the median of the rounds, and of the least times."""
    times = []
    for n in range(rounds):
        order = (plain, carried) if n % 2 else (carried, plain)
        taken = {call: seconds(call) for call in order}
        times.append((taken[plain], taken[carried]))
    whole, pieces = zip(*times, strict=True)
    return statistics.median(b / a for a, b in times), min(pieces) / min(whole)


def contests(
    queries: int, keys: int, stretch: int, dim: int
) -> Iterator[tuple[str, Callable[[], object], Callable[[], object]]]:
    """A plain call and what carries sums, by name."""
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((n, dim)).astype(np.float32) for n in (queries, keys, keys))
    first = keys - queries
    one = slice(0, stretch)

    def fold() -> Attended:
        total = partial(q, k[one], v[one], mask=causal(at=first), threads=1)
        for start in range(stretch, keys, stretch):
            total = total.then(k[start : start + stretch], v[start : start + stretch])
        return total.finish()

    def whole() -> Attended:
        return attend(q, k, v, mask=causal(at=first), threads=1)

    assert np.array_equal(whole().output, fold().output)
    before = partial(q, k[one], v[one], mask=full(), threads=1)
    yield "stretch", lambda: attend(q, k[one], v[one], mask=full(), threads=1), lambda: before.then(k[one], v[one])
    yield "fold", whole, fold


def main() -> None:
    """Measure all shapes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    for queries, keys, stretch, dim in SHAPES:
        for name, plain, carried in contests(queries, keys, stretch, dim):
            carried(), plain()
            median, least = ratio(plain, carried, rounds)
            verdict = "PASS" if median <= MOST else "MISS"
            shape = f"{queries} × {keys} × {dim}, {stretch} keys a stretch"
            print(
                f"{verdict} {name}, {shape}: {median:.3f} × plain (least times {least:.3f}), at most {MOST}", flush=True
            )


if __name__ == "__main__":
    main()
