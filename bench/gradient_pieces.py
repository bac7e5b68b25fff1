"""Gradients in pieces: dQ and dK, dV in stretches beside one call of backward, by processor time.

    python bench/gradient_pieces.py [--rounds 9]

One thread, in turns, in alternating order; the median of the rounds' ratios counts, for other work on the machine
slows both alike. Pieces are those of two owners: each has half of the queries and half of the keys, causal.
By multiply-adds: 5 products in one pass; 3 for dQ and 4 for dK, dV, since scores and dP are computed twice: 7 / 5.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from clearhead import Gradients, attend, causal, key_gradients, query_gradient

SHAPES = ((1, 12288, 64, 6144), (1, 12288, 128, 6144), (4, 6144, 64, 6144))  # heads, length, dim, rows of a stretch
MOST = 1.5  # both together take at most so much of one backward's time


def seconds(call: Callable[[], object]) -> float:
    """Processor time of one call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def ratio(heads: int, length: int, dim: int, stretch: int, rounds: int) -> tuple[float, float]:
    """The pieces' time by that of one backward: the median of the rounds, and of the least times."""
    rng = np.random.default_rng(0)
    q, k, v, d_out = (rng.standard_normal((heads, length, dim)).astype(np.float32) for _ in range(4))
    done = attend(q, k, v, threads=1)
    of_queries = (done.output, done.lse, d_out)
    parts = [slice(at, at + stretch) for at in range(0, length, stretch)]

    def piece(function: Callable[..., Any], rows: slice, keys: slice, before: Any) -> Any:
        own = (x[:, rows] for x in of_queries)
        at: dict[str, Any] = {"first_key": keys.start, "mask": causal(at=rows.start), "threads": 1}
        return function(q[:, rows], k[:, keys], v[:, keys], *own, before=before, **at)

    def whole() -> Gradients:
        return done.backward(d_out)

    def pieces() -> tuple[list[np.ndarray], ...]:
        d_q: list[np.ndarray] = []
        d_k: list[np.ndarray] = []
        d_v: list[np.ndarray] = []
        for n, mine in enumerate(parts):
            found = None
            for keys in parts[: n + 1]:
                found = piece(query_gradient, mine, keys, found)
            d_q.append(found.q)
            found = None
            for rows in parts[n:]:
                found = piece(key_gradients, rows, mine, found)
            d_k.append(found.k)
            d_v.append(found.v)
        return d_q, d_k, d_v

    want = whole()
    for own, name in zip(pieces(), "qkv", strict=True):
        assert np.array_equal(np.concatenate(own, 1), getattr(want, name))
    times = []
    for n in range(rounds):
        order = (whole, pieces) if n % 2 else (pieces, whole)
        taken = {call.__name__: seconds(call) for call in order}
        times.append((taken["whole"], taken["pieces"]))
    plain, cut = zip(*times, strict=True)
    return statistics.median(b / a for a, b in times), min(cut) / min(plain)


def main() -> None:
    """Measure all shapes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    for heads, length, dim, stretch in SHAPES:
        median, least = ratio(heads, length, dim, stretch, rounds)
        verdict = "PASS" if median <= MOST else "MISS"
        print(
            f"{verdict} {heads} × {length} × {dim}, {stretch} a stretch: {median:.3f} × one backward "
            f"(least times {least:.3f}), at most {MOST}",
            flush=True,
        )


if __name__ == "__main__":
    main()
