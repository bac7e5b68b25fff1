"""Sums carried over stretches of keys, and gradients in pieces, beside one call with the same bits."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bench.workload import Workload, takes
from clearhead import Attended, Gradients, attend, causal, full, key_gradients, partial, query_gradient
from clearhead.arrays import Array
from clearhead.cli.race import Contender, Exact

FORWARD = (  # queries, keys, keys in a stretch, dim
    (2048, 2048, 2048, 64), (2048, 8192, 2048, 64), (4096, 16384, 2048, 64), (4096, 16384, 4096, 64),
    (2048, 8192, 2048, 128),
)  # fmt: skip
BACKWARD = ((1, 8192, 64, 4096), (1, 8192, 128, 4096), (4, 4096, 64, 4096))  # heads, length, dim, rows of a stretch
NEW = "new arrays for the sums, and the division at the end, beside a call of a few milliseconds"
TWICE = "both passes compute scores and dP anew: 7 products where one pass has 5"


def workloads(*, quick: bool) -> Iterator[Workload]:
    """A stretch, a whole fold, and gradients of two owners, who have half of the rows each."""
    for sizes in ((128, 4096, 2048, 16),) if quick else FORWARD:
        yield from carried(*sizes)
    for sizes in ((1, 4096, 16, 2048),) if quick else BACKWARD:
        yield gradients(*sizes)


def carried(queries: int, keys: int, stretch: int, dim: int) -> Iterator[Workload]:
    """What carries sums beside a plain call."""
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

    def plain() -> Attended:
        return attend(q, k[one], v[one], mask=full(), threads=1)

    before = partial(q, k[one], v[one], mask=full(), threads=1)
    name = f"{queries} × {keys} × {dim}, {stretch} keys a stretch"
    yield beside(f"a stretch, {name}", lambda: before.then(k[one], v[one]), plain, read=None)
    yield beside(f"a fold, {name}", fold, whole, read=lambda done: done.output, cause=NEW)


def beside(
    name: str,
    pieces: Callable[[], Any],
    whole: Callable[[], Any],
    *,
    read: Callable[[Any], Array] | None,
    bound: float = 1.05,
    cause: str = "",
) -> Workload:
    """Pieces beside one call; where `read` says how, their answers must be equal bit for bit."""

    return Workload(
        name,
        None if read is None else lambda: Exact(read(whole()).astype(np.float64), close=0.0),
        {"clearhead": lambda: Contender(pieces, read or np.asarray)},
        {},
        {"one call": lambda: Contender(whole)},
        promises=(takes("one call", bound),),
        cause=cause,
        rounds=9,
    )


def gradients(heads: int, length: int, dim: int, stretch: int) -> Workload:
    """dQ where the queries are, dK and dV where the keys are."""
    rng = np.random.default_rng(0)
    q, k, v, d_out = (rng.standard_normal((heads, length, dim)).astype(np.float32) for _ in range(4))
    done = attend(q, k, v, threads=1)
    of_queries = (done.output, done.lse, d_out)
    parts = [slice(at, at + stretch) for at in range(0, length, stretch)]

    def piece(function: Callable[..., Any], rows: slice, keys: slice, before: Any) -> Any:
        mine = (x[:, rows] for x in of_queries)
        at: dict[str, Any] = {"first_key": keys.start, "mask": causal(at=rows.start), "threads": 1}
        return function(q[:, rows], k[:, keys], v[:, keys], *mine, before=before, **at)

    def whole() -> Gradients:
        return done.backward(d_out)

    def pieces() -> tuple[list[Array], ...]:
        found: tuple[list[Array], ...] = ([], [], [])
        for n, mine in enumerate(parts):
            of_q = of_k = None
            for keys in parts[: n + 1]:
                of_q = piece(query_gradient, mine, keys, of_q)
            for rows in parts[n:]:
                of_k = piece(key_gradients, rows, mine, of_k)
            for some, one in zip(found, (of_q.q, of_k.k, of_k.v), strict=True):
                some.append(one)
        return found

    def read(got: Any) -> Array:
        if isinstance(got, tuple) and isinstance(got[0], list):
            return np.stack([np.concatenate(one, 1) for one in got])
        return np.stack([got.q, got.k, got.v])

    name = f"gradients, {heads} × {length} × {dim}, {stretch} rows a stretch"
    return beside(name, pieces, whole, read=read, bound=1.5, cause=TWICE)
