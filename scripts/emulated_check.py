"""Run another system's code of the kernels under an emulator and compare it with this machine's.

    emulated_check.py arm        AArch64 Linux under qemu
    emulated_check.py windows    Windows x86-64 under Wine

Outputs, log-sum-exps, attention over caches, single weights and what is found for each query must have the same bits.
Sums over queries (gradients, received mass, pictures) have an order of their own for each vector width and may
differ by their rounding. Exit status 1 if anything differs by more.
"""

import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from emulation import SYSTEMS, emulated

from clearhead import (
    KeyValueCache,
    alibi,
    attend,
    bias,
    causal,
    dense,
    documents,
    full,
    functions,
    join,
    partial,
    query_gradient,
    softcap,
    weights,
    where,
    window,
)
from clearhead.arrays import Array
from clearhead.pieces import piece_gradients, segments
from clearhead.testing import check_same_bits


def random(*shape, dtype, seed=0):
    """Numbers that depend on shape and seed alone."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


SLOPES = np.array([0.3, -0.1])


def curved(score, batch, head, query, key):
    """A rule that uses every function."""
    return np.where(score > 0, np.log(1 + np.exp(score)), functions.sigmoid(score)) + SLOPES[head] * (key - query)


def problems():
    """Names, arrays and rules."""
    for dtype in (np.float32, np.float64):
        make = functools.partial(random, dtype=dtype)
        for n in (1, 2, 3, 15, 16, 17, 63, 64, 65, 127, 128, 129, 197, 300):
            for d in (64, 17):
                yield f"causal {n} × {d}", (make(2, n, d), make(2, n, d, seed=1), make(2, n, d, seed=2)), {}
        for m in (1, 7, 16, 129, 2047, 2048, 2049, 4100):
            q, k, v = make(4, 3, 32), make(2, m, 32), make(2, m, 16)
            yield f"decode 3 of {m}", (q, k, v), {"mask": causal(align="end")}
            yield f"full 70 of {m}", (make(2, 70, 5), make(2, m, 5), make(2, m, 3)), {"mask": full()}
        for dim in (1, 2, 3, 15, 16, 33, 100, 512):
            yield f"dim {dim}", (make(2, 70, dim), make(1, 70, dim), make(1, 70, dim, seed=3)), {}
        wide = make(2, 150, 40)
        yield "turned, strided", (wide[:, ::-1, ::2], wide[::-1, :, 1::2], wide[:, ::-1, :20]), {}
        x = make(2, 140, 20)
        spoilt = x.copy()
        spoilt[:, -9:] = np.array([np.nan, np.inf, -np.inf])[np.arange(9) % 3][:, None]
        yield "hidden NaN and infinity", (x[:, :130], spoilt, spoilt), {"mask": causal(align="start")}
        for size, name in ((1e15, "huge"), (np.finfo(dtype).smallest_subnormal * 50, "subnormal"), (0, "zero")):
            yield name, tuple((x * size).astype(dtype) for _ in range(3)), {}
        yield "window", (x, x, x), {"mask": window(30)}
        yield "documents", (x, x, x), {"mask": documents([3, 100, 37]) & causal()}
        yield "dense mask", (x, x, x), {"mask": dense(make(2, 140, 140) > 0)}
        yield "mask function", (x, x, x), {"mask": where(lambda b, h, q, k: (k + q // 3) % 4 != h)}
        yield "softcap", (x, x, x), {"score": softcap(1.5)}
        yield "ALiBi and sink", (x, x, x), {"score": alibi(2), "sink": make(2)}
        yield "function", (x, x, x), {"score": curved}
        yield "bias", (x, x, x), {"score": bias(make(2, 140, 140))}
    for name in ("float16",):
        x = random(2, 140, 20, dtype=np.float32).astype(name)
        yield name, (x, x[:, ::-1], x[..., ::-1]), {}


def cached() -> Iterator[tuple[str, Callable[[], dict[str, Array]]]]:
    """Caches of every kind of storage, read by few queries and by many."""
    for dtype, kept in (("float32", None), ("float64", None), ("float16", None), ("float32", "int8")):
        for queries in (1, 3, 40):
            for rules in ({}, {"score": softcap(1.5)}, {"sink": random(4, dtype=dtype)}):

                def call(dtype: str = dtype, kept: Any = kept, queries: int = queries, rules: Any = rules) -> Any:
                    cache = KeyValueCache(dtype=kept)
                    for part in range(3):
                        keys, values = (random(2, 101, 32, dtype=np.float32, seed=9 * part + n) for n in (1, 2))
                        cache.append(keys.astype(dtype), values.astype(dtype))
                    q = random(4, queries, 32, dtype=np.float32).astype(dtype)
                    done = attend(q, cache, **rules, threads=1)
                    return {"output": done.output, "lse": done.lse}

                yield f"cache of {kept or dtype}, {queries} queries, {', '.join(rules) or 'no rules'}", call


def swept() -> Iterator[tuple[str, Callable[[], dict[str, Array]]]]:
    """What is read off weights: themselves, a map of them, and what is found for each query and key."""
    for dtype in ("float32", "float64"):
        for name, rules in (
            ("causal", {}), ("window", {"mask": window(30)}), ("softcap", {"score": softcap(1.5)}),
            ("function", {"mask": where(lambda b, h, q, k: (k + q // 3) % 4 != h)}),
        ):  # fmt: skip

            def call(dtype: str = dtype, rules: Any = rules) -> Any:
                q, k = (random(2, 300, 20, dtype=dtype, seed=n) for n in range(2))
                all_weights = weights(q, k, **({"mask": causal()} | rules))
                found = dict(all_weights.summary(top=3))
                found |= {f"map {how}": all_weights.map(size=32, reduce=how) for how in ("mean", "max")}
                q, k = (random(2, 300, 32, dtype=dtype, seed=n) for n in range(2))  # whole vectors: a row's own kernel
                row = weights(q, k, **({"mask": causal()} | rules))[1, 250]
                return found | {"weights": np.asarray(all_weights), "row": row}

            yield f"weights {dtype} {name}", call


def in_pieces() -> Iterator[tuple[str, Callable[[], dict[str, Array]]]]:
    """Sums carried from one stretch of keys to the next, joined, divided, and gradients by stretches."""
    for dtype in ("float32", "float64", "float16"):
        visible = dense(random(4200, 4200, dtype=np.float32) > 0) & causal(at=4130)
        for name, rules in (("causal", {}), ("ALiBi", {"score": alibi(2)}), ("dense mask", {"mask": visible})):

            def call(dtype: str = dtype, rules: Any = rules) -> Any:
                q, k, v = (random(2, n, 20, dtype=np.float32, seed=n).astype(dtype) for n in (70, 4200, 4200))
                asked = {"mask": causal(at=4130)} | rules
                carried = partial(q, k[:, :2048], v[:, :2048], **asked).then(k[:, 2048:], v[:, 2048:])
                first, *others = segments(q, k, v, **asked)
                joined = functools.reduce(join, others, first)
                done = carried.finish(sink=random(2, dtype=np.float32).astype(joined.o.dtype))
                out = done.unrounded
                parts = piece_gradients(q, k, v, out, done.lse, np.ones_like(out, q.dtype), **asked)
                of_queries = query_gradient(q, k, v, out, done.lse, np.ones_like(out, q.dtype), **asked)
                return {
                    "output": done.output, "lse": done.lse, "joined": joined.o, "d_query of queries": of_queries.q,
                    "d_query": parts.query, "d_key": parts.key, "d_value": parts.value,
                }  # fmt: skip

            yield f"pieces {dtype} {name}", call


OVER_QUERIES = ("received_sum", "received_mean", "map mean", "d_query", "d_query of queries", "d_key", "d_value")


def gradients(arrays: Any, rules: Any) -> dict[str, Array]:
    """Output, log-sum-exp and gradients."""
    done = attend(*arrays, **({"mask": causal()} | rules), threads=1)
    d_out = random(*done.output.shape, dtype=np.float32, seed=9).astype(arrays[0].dtype)
    found = done.backward(d_out)
    return {"output": done.output, "lse": done.lse, "d_query": found.q, "d_key": found.k, "d_value": found.v}


def cases() -> Iterator[tuple[str, Callable[[], dict[str, Array]], Any]]:
    """Names, calls, and the operands by whose size sums over queries are judged."""
    for name, arrays, rules in problems():
        yield f"{arrays[0].dtype} {name}", functools.partial(gradients, arrays, rules), arrays
    for name, call in (*cached(), *swept(), *in_pieces()):
        yield name, call, ()


def near(got: Array, want: Array, name: str, arrays: Any) -> bool:
    """Two ways to add up the same sum differ by rounding alone; what is not a number must be so in both.

    Gradients of q and k are sums of differences dP − δ, which may cancel: those differences' size counts, too.
    """
    dtype = arrays[0].dtype if arrays else want.dtype
    got, want = (np.asarray(x, np.float64) for x in (got, want))
    terms = {"d_query": arrays[1:], "d_key": (arrays[0], arrays[2])}.get(name, ()) if arrays else ()
    differences = 8 * np.prod([largest(x) for x in terms]) if len(terms) else 0
    unit = 1e-3 if dtype == np.float16 else 64 * np.finfo(dtype).eps
    finite = np.isfinite(want)
    size = max(largest(want), differences)
    return bool((finite == np.isfinite(got)).all() and (np.abs(got - want)[finite] <= unit * size).all())


def largest(x: Array) -> float:
    """The size of the largest finite number."""
    sizes = np.abs(np.asarray(x, np.float64))
    return float(sizes[np.isfinite(sizes)].max(initial=0))


def main() -> int:
    """All cases; the number of bits that agree, or what differs."""
    bits, sums, failed = 0, 0, 0
    system = SYSTEMS[sys.argv[1]]
    wanted = [(name, call(), call, arrays) for name, call, arrays in cases()]
    with emulated(system) as emulator:
        for name, here, call, arrays in wanted:
            for part, there in call().items():
                if part in OVER_QUERIES:
                    sums += there.size
                    same = near(there, here[part], part, arrays)
                else:
                    bits += 8 * there.nbytes
                    same = equal(there, here[part])
                if not same:
                    failed += 1
                    print(f"{name}: {part} differs", flush=True)
    runs = f"{emulator.runs} runs of {len(emulator.programs)} kernels of {system.name} under {system.emulator}"
    print(f"{runs}: {bits:,} bits and {sums:,} sums over queries, {failed} differ")
    return 1 if failed else 0


def equal(a: Array, b: Array) -> bool:
    """Whether all bits are the same, or both are not a number."""
    if a.dtype.kind != "f":
        return bool((a == b).all())
    try:
        check_same_bits(a, b, "arrays")
    except AssertionError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
