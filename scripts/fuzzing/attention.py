"""Attention against the definition on random problems.

Each case draws a mask, score rules, a sink, a dtype, lengths at the borders of tiles, blocks and segments, heads, dims
and memory layouts; the result is compared with the float64 definition, one in ten with the scalar program by bits, and
one in five with attention over a cache.
"""

import numpy as np

from clearhead import (
    KeyValueCache,
    alibi,
    attend,
    attention,
    bias,
    blocks,
    causal,
    dense,
    documents,
    full,
    functions,
    prefix,
    relative,
    scale,
    softcap,
    where,
    window,
)  # fmt: skip
from clearhead.definition import canonical
from clearhead.machine.target import native_isas
from clearhead.rules.document_masks import Documents
from clearhead.rules.mask_kinds import Blocks, Full
from clearhead.rules.placement import at_end
from clearhead.testing import check_definition, check_same_bits, using_isa
from tests.strategies import laid_out, values

LENGTHS = [1, 2, 3, 4, 5, 15, 16, 17, 31, 33, 63, 64, 65, 100, 127, 128, 129, 130, 200, 255, 257, 300]
LONG = [2047, 2048, 2049, 2300]
DIMS = [1, 2, 3, 7, 8, 15, 16, 17, 32, 33, 48, 64]
LAYOUTS = ["plain", "plain", "transposed", "reversed", "every_other", "misaligned", "same_row", "read_only"]
KINDS = ["normal", "normal", "large", "tiny", "equal", "zeros", "orthogonal"]


def two_branches(score, batch, head, query, key):
    """A rule with a function of each branch's own."""
    return np.where(score > 0, np.log(1 + np.exp(-score)) + score, functions.sigmoid(score) * 2 - np.sqrt(key + 1.0))


def case(seed: int):
    """One problem: arrays and rules."""
    rng = np.random.default_rng(seed)
    pick = lambda options: options[int(rng.integers(len(options)))]  # noqa: E731
    dtype = pick([np.float32, np.float32, np.float64, np.float16])
    key_heads, group = pick([1, 2]), pick([1, 2, 3])
    heads = key_heads * group
    m = pick(LONG) if rng.random() < 0.03 else pick(LENGTHS)
    n = pick([m, pick(LENGTHS), 1, 2, 4])
    n = min(n, 300)
    lead = pick([(), (2,)])
    d, dv, kind = pick(DIMS), pick(DIMS), pick(KINDS)
    shapes = (*lead, heads, n, d), (*lead, key_heads, m, d), (*lead, key_heads, m, dv)
    arrays = [laid_out(values(rng, shape, kind, dtype), pick(LAYOUTS)) for shape in shapes]
    align = pick(["start", "end"])
    split_n, split_m = ([x // 3, x - x // 3] for x in (n, m))
    slopes, modulus = rng.standard_normal(heads), int(rng.integers(1, 6))
    masks = [
        lambda: causal(align=align),
        full,
        lambda: window(int(rng.integers(0, 140)), pick([0, 3, None]), align=align),
        lambda: causal(align=align) | prefix(int(rng.integers(0, m + 1))),
        lambda: ~window(int(rng.integers(0, 20)), 2, align=align),
        lambda: dense(rng.random((pick([1, heads]), n, m)) < 0.5),
        lambda: dense(rng.random((n, m)) < 0.1) & window(80, None, align=align),
        lambda: blocks(rng.random((-(-max(n, m) // 16) + 2, -(-m // 16))) < 0.5, 16),
        lambda: where(lambda b, h, q, k: (q + k + h) % modulus != 0),
        lambda: documents(split_m, queries=split_n) & causal(align=align),
        lambda: documents(split_m, queries=split_n),
    ]
    scores = [
        lambda: (), lambda: (), lambda: softcap(float(rng.uniform(1, 50))), lambda: alibi(heads),
        lambda: bias(rng.standard_normal((pick([1, heads]), pick([1, n]), m))), lambda: scale(0.5),
        lambda: relative(rng.standard_normal((heads, 2 * modulus + 1)), modulus),
        lambda: relative(rng.standard_normal((heads, 8)), 40, bidirectional=pick([True, False])),
        lambda: [alibi(heads), softcap(20.0)], lambda: lambda s, b, h, q, k: s + slopes[h] * (k - q) * 0.1,
        lambda: two_branches,
    ]  # fmt: skip
    rules = {"mask": pick(masks)(), "score": pick(scores)(), "scale": pick([None, None, 1.0, -0.5])}
    if n != m and (rules["score"] != () or rules["mask"].__class__ is not Full):  # which may read where queries stand
        before_first = n > m and isinstance(
            rules["mask"], Blocks
        )  # no table of blocks has queries before the first key
        rules["mask"] &= window(None, None, align="start" if before_first else align)
    rules["sink"] = rng.standard_normal(heads).astype(np.float32) if rng.random() < 0.2 else None
    return arrays, rules, rng


def check(seed: int) -> None:
    """One case, on one of the instruction sets."""
    (q, k, v), rules, rng = case(seed)
    isas = native_isas()
    with using_isa(isas[int(rng.integers(len(isas)))] if rng.random() < 0.3 else isas[0]):
        check_definition(attention, q, k, v, **rules)
        if rng.random() < 0.1 and k.shape[-2] < 1000:
            got, expected = attend(q, k, v, **rules), canonical.attention(q, k, v, **rules)
            check_same_bits(got.output, expected[0], "outputs")
            check_same_bits(got.lse, expected[1], "log-sum-exps")
        if rng.random() < 0.2 and not any(isinstance(part, Documents) for part in rules["mask"].parts()):
            check_cache(q, k, v, rules, rng)


def check_cache(q, k, v, rules, rng) -> None:
    """The same keys and values in a cache, of 8 bits or as they are: the bits of attention over what it holds."""
    cache = KeyValueCache(dtype="int8" if q.dtype != np.float64 and rng.random() < 0.5 else None)
    lead = (1,) * (4 - q.ndim)
    k, v = (x.reshape(lead + x.shape) if q.ndim < 4 else x for x in (k, v))
    step = int(rng.integers(1, 200))
    for first in range(0, k.shape[-2], step):
        cache.append(k[:, :, first : first + step], v[:, :, first : first + step])
    own = [np.stack(parts) for parts in zip(*(cache.arrays(n) for n in range(len(k))), strict=True)]
    q = q.reshape(lead + q.shape) if q.ndim < 4 else q
    rules = {**rules, "mask": at_end(rules["mask"])}
    got, expected = attend(q, cache, **rules), attend(q.astype(own[0].dtype), *own, **rules)
    check_same_bits(got.output, expected.output.astype(q.dtype), "outputs over a cache")
    check_same_bits(got.lse, expected.lse, "log-sum-exps over a cache")


def describe(seed: int) -> str:
    """The rules of a case."""
    return str(case(seed)[1])
