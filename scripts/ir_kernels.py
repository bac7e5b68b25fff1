"""The kernels that scripts/ir writes: each on every instruction set, with a choice of dtypes, rules and operands."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from ml_dtypes import bfloat16

from clearhead import (
    alibi,
    bias,
    causal,
    dense,
    documents,
    full,
    functions,
    prefix,
    problem,
    relative,
    softcap,
    where,
    window,
)  # fmt: skip
from clearhead.engine.launch import spec_for
from clearhead.engine.problem import Problem, over_pages
from clearhead.gradients.launch import BackwardLaunch, float_arrays
from clearhead.kernels.abi.tiles import F32, F64, tile_for
from clearhead.kernels.abi.variant import Variant, Wanted
from clearhead.machine.compile import KernelSpec, write_ir
from clearhead.machine.target import AARCH64, Target
from clearhead.rules.expression import Expression

HEADS, QUERIES, KEYS, DIM = 2, 300, 300, 32
SLOPES = np.array([0.3, -0.1])
TABLE = np.linspace(-1, 1, HEADS * 9).reshape(HEADS, 9)
BIAS = np.linspace(-1, 1, HEADS * QUERIES * KEYS).reshape(HEADS, QUERIES, KEYS)
TARGETS = {
    "avx512": Target("avx512", "x86_64-unknown-linux-gnu", "x86-64-v4", "+avx512bf16", 512, 32),
    "avx2": Target("avx2", "x86_64-unknown-linux-gnu", "x86-64-v3", "", 256, 16),
    "generic": Target("generic", "x86_64-unknown-linux-gnu", "x86-64", "", 128, 16),
    "neon": AARCH64,
}
DTYPES = {"f32": np.float32, "f64": np.float64, "f16": np.float16, "bf16": bfloat16}


def curved(score, batch, head, query, key):
    """A rule with functions, a choice, whole numbers and an array."""
    curve = np.where(score > 0, np.log(1 + np.exp(-score)) + score, functions.sigmoid(score) * np.sqrt(key + 1.0))
    return np.tanh(curve) + SLOPES[head] * abs(query - key)


def rounded(score, batch, head, query, key):
    """A rule that rounds, takes remainders of floats, and indexes an array by one."""
    return np.rint(score * 8) / 8 + np.fmod(score, 0.7) + score // 3 + SLOPES[math.floor(abs(score)) % 2]


def waved(score, batch, head, query, key):
    """A rule of elementary functions that are programs in double precision."""
    return functions.gelu(score) + np.sin(score * key) + np.arctan2(score, key + 1.0) + np.abs(score) ** 1.5


def strided(batch, head, query, key):
    """A mask of one's own."""
    return (query - key) % 3 == head


RULES: dict[str, dict[str, Any]] = {
    "causal": {},
    "full": {"mask": full()},
    "window": {"mask": window(40)},
    "sides": {"mask": window(5, 3)},
    "prefix": {"mask": causal() | prefix(9)},
    "documents": {"mask": documents([100, 200]) & causal()},
    "dense": {"mask": dense(BIAS[0] < 0)},
    "strided": {"mask": where(strided) & causal()},
    "softcap": {"score": softcap(30.0)},
    "alibi": {"score": alibi(HEADS)},
    "relative": {"score": relative(TABLE, 4)},
    "bias": {"score": bias(BIAS)},
    "curved": {"score": curved},
    "rounded": {"score": rounded},
    "waved": {"score": waved},
    "sink": {"sink": np.zeros(HEADS)},
    "several": {"mask": window(40), "score": [softcap(30.0), alibi(HEADS)], "sink": np.zeros(HEADS)},
}
FEW = ("causal", "window", "dense", "softcap", "bias", "curved")
CONSUMERS = (
    ("block",), ("pool_sum",), ("pool_max",), ("received_sum", "received_max"),
    ("entropy", "distance", "within", "off_first", "top"), ("matches", "distances"), ("scores",),
)  # fmt: skip

Case = tuple[str, Callable[[], KernelSpec]]


def asked(dtype: str, rules: str, queries: int = QUERIES, keys: int = KEYS, key_heads: int = HEADS) -> Problem:
    """One of the problems, with heads that may share their keys."""
    q = np.zeros((HEADS, queries, DIM), DTYPES[dtype])
    k = np.zeros((key_heads, keys, DIM), DTYPES[dtype])
    return problem(q, k, k, **({"mask": causal(align="end")} | RULES[rules]))


def forward(isa: str, dtype: str, rules: str, **changes: Any) -> KernelSpec:
    """The forward kernel of a problem."""
    return spec_for(replace(asked(dtype, rules), **changes), TARGETS[isa])


def drawn(isa: str) -> KernelSpec:
    """The forward kernel with random numbers in its mask, as dropout has them."""
    k0, k1, threshold = (
        Expression("load", "int", (Expression("constant", "int", value=n),), array=0) for n in range(3)
    )
    bits = Expression("threefry", "int", (k0, k1, Expression("row", "int"), Expression("key", "int")))
    spec, mask = forward(isa, "f32", "causal"), Expression("ge", "bool", (bits, threshold))
    return replace(spec, variant=replace(spec.variant, mask=mask, arrays=(("int64", 1),)))


def decode(isa: str, dtype: str, rules: str, key_heads: int = HEADS, **changes: Any) -> KernelSpec:
    """The decode kernel: the last query of the same length."""
    given = RULES[rules].get("mask")
    one = asked(dtype, rules if given is None else "causal", queries=1, key_heads=key_heads)
    return spec_for(replace(one, **changes), TARGETS[isa])


def cached(isa: str, dtype: str, rules: str, queries: int, *, int8: bool = False) -> KernelSpec:
    """The kernel that reads a cache's pages."""
    whole = asked(dtype, rules, queries=queries)
    return spec_for(over_pages(whole, causal(), first_key=0, int8=int8), TARGETS[isa])


def sweep(isa: str, dtype: str, rules: str, consumers: tuple[str, ...]) -> KernelSpec:
    """The kernel that sweeps over weights."""
    spec = forward(isa, dtype, rules)
    return replace(spec, kernel="sweep", variant=replace(spec.variant, sink=False, native=False, consumers=consumers))


def row(spec: KernelSpec) -> KernelSpec:
    """The kernel of single queries' weights, for the problem of another."""
    variant = replace(spec.variant, sink=False, native=False, consumers=("block",), key_rows=(), packed=False)
    return replace(spec, kernel="row_sweep", variant=variant)


def backward(isa: str, dtype: str, rules: str) -> KernelSpec:
    """The kernel of all gradients, those of the rules' arrays too."""
    whole = asked(dtype, rules)
    arrays = float_arrays(whole.rules.expressions[3])
    spec = forward(isa, dtype, rules)
    return KernelSpec("backward", spec.tile, spec.target, BackwardLaunch(whole, whole.output, arrays, False).variant)


def carried(isa: str, dtype: str, rules: str, queries: int = QUERIES) -> KernelSpec:
    """The kernel that adds a stretch of keys to sums."""
    return spec_for(
        replace(asked(dtype, rules, queries=queries), carried=True, unrounded=dtype == "bf16"), TARGETS[isa]
    )


def of_results(isa: str, kernel: str, **features: Any) -> KernelSpec:
    """A kernel over what others found: it joins sums, divides them, or rounds results to 16 bits."""
    target = TARGETS[isa]
    tile = tile_for(F32, target.vector_bits, target.registers)
    return KernelSpec(kernel, tile, target, Variant(**features))


def of_pieces(isa: str, dtype: str, rules: str, gradients: Wanted) -> KernelSpec:
    """The kernel of the gradients of a stretch, without those of arrays."""
    whole = replace(asked(dtype, rules), carried=True)
    spec = forward(isa, dtype, rules)
    launch = BackwardLaunch(whole, whole.output, (), False, gradients)
    return KernelSpec("backward", spec.tile, spec.target, launch.variant)


def peak(isa: str, dtype: str) -> KernelSpec:
    """The kernel that measures the processor."""
    target = TARGETS[isa]
    return KernelSpec("peak", tile_for({"f32": F32, "f64": F64}[dtype], target.vector_bits, target.registers), target)


def cases(isa: str) -> Iterator[Case]:
    """All kernels of one instruction set, by name."""
    wide = isa in ("avx512", "avx2")
    for rules in RULES if wide else FEW:
        yield f"forward-f32-{rules}", lambda rules=rules: forward(isa, "f32", rules)
        if "sink" not in RULES[rules]:
            yield f"backward-f32-{rules}", lambda rules=rules: backward(isa, "f32", rules)
    for rules in FEW:
        yield f"forward-f64-{rules}", lambda rules=rules: forward(isa, "f64", rules)
        yield f"backward-f64-{rules}", lambda rules=rules: backward(isa, "f64", rules)
    yield "forward-f32-drawn", lambda: drawn(isa)
    for rules in ("causal", "softcap", "alibi", "sink"):
        yield f"decode-f32-{rules}", lambda rules=rules: decode(isa, "f32", rules)
    yield "decode-f64-causal", lambda: decode(isa, "f64", "causal")
    yield "decode-bf16-causal", lambda: decode(isa, "bf16", "causal")
    yield "decode-f32-shared", lambda: decode(isa, "f32", "causal", key_heads=1)
    for queries in (1, QUERIES):
        for dtype, rules in (("f32", "causal"), ("f32", "softcap"), ("bf16", "causal")):
            yield f"cached-{dtype}-{rules}-{queries}", lambda q=queries, d=dtype, r=rules: cached(isa, d, r, q)
        yield f"cached-f32-int8-{queries}", lambda q=queries: cached(isa, "f32", "causal", q, int8=True)
    halves: tuple[Wanted, ...] = ("queries", "keys", "all")
    for part in halves:
        for dtype, rules in (
            ("f32", "causal"),
            ("f32", "dense"),
            ("f32", "alibi"),
            ("f64", "causal"),
            ("bf16", "causal"),
        ):
            yield f"pieces-{part}-{dtype}-{rules}", lambda p=part, d=dtype, r=rules: of_pieces(isa, d, r, p)
    for dtype in ("f16", "bf16"):
        yield f"forward-{dtype}-causal", lambda d=dtype: forward(isa, d, "causal")
        yield f"forward-{dtype}-wide", lambda d=dtype: forward(isa, d, "causal", unrounded=True)
        yield f"backward-{dtype}-causal", lambda d=dtype: backward(isa, d, "causal")
    for consumers in CONSUMERS:
        yield f"sweep-f32-causal-{consumers[0]}", lambda c=consumers: sweep(isa, "f32", "causal", c)
    for rules in ("window", "softcap", "dense", "documents"):
        yield f"sweep-f32-{rules}-block", lambda rules=rules: sweep(isa, "f32", rules, ("block",))
    yield "sweep-f64-causal-block", lambda: sweep(isa, "f64", "causal", ("block",))
    for dtype, rules in (
        ("f32", "causal"),
        ("f32", "dense"),
        ("f32", "softcap"),
        ("f64", "window"),
        ("bf16", "causal"),
    ):
        yield f"row-{dtype}-{rules}", lambda d=dtype, r=rules: row(forward(isa, d, r))
    yield "row-f32-int8", lambda: row(cached(isa, "f32", "causal", QUERIES, int8=True))
    for dtype, rules in (("f32", "causal"), ("f32", "window"), ("f32", "dense"), ("f64", "causal"), ("bf16", "causal")):
        yield f"carried-{dtype}-{rules}", lambda d=dtype, r=rules: carried(isa, d, r)
    yield "carried-f32-few", lambda: carried(isa, "f32", "causal", queries=1)
    yield "join-f32", lambda: of_results(isa, "join")
    for sink in (False, True):
        yield f"finish-f32-{'sink' if sink else 'plain'}", lambda s=sink: of_results(isa, "finish", sink=s)
    for dtype in ("f16", "bf16"):
        yield f"narrowing-{dtype}", lambda d=dtype: of_results(isa, "narrowing", storage=np.dtype(DTYPES[d]).name)
    yield "peak-f32", lambda: peak(isa, "f32")
    yield "peak-f64", lambda: peak(isa, "f64")
    if isa == "avx512":
        for rules in ("causal", "softcap", "full"):
            yield f"native-bf16-{rules}", lambda rules=rules: forward(isa, "bf16", rules, native=True)


def groups() -> list[str]:
    """What may be written apart from the rest: one group for each instruction set."""
    return list(TARGETS)


def write_group(isa: str) -> dict[str, str]:
    """The IR of one instruction set's kernels, by name."""
    return {f"{isa}-{name}": write_ir(spec()) for name, spec in cases(isa)}
