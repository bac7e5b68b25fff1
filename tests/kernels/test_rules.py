"""Fused rules: every mask, score rule, sink and dtype gives the canonical bits, on every instruction set."""

import ml_dtypes
import numpy as np
import pytest

import clearhead
from clearhead import (
    alibi,
    attend,
    attention,
    bias,
    blocks,
    causal,
    dense,
    dilated,
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
from clearhead.definition import canonical, textbook
from clearhead.machine import compile as machine
from clearhead.machine.target import native_isas
from clearhead.testing import check_hidden, check_same_bits, using_isa
from tests.arrays import random
from tests.kernels.combinations import all_pairs

ISAS = native_isas()
HEADS = 2


def check(q, k, v, isas=ISAS[:1], **rules):
    """Output and log-sum-exp against the scalar program, and the output against the textbook."""
    output, lse = canonical.attention(q, k, v, **rules)
    exact = textbook.attention(*(x.astype(np.float64) for x in (q, k, v)), **rules)
    tolerance = {2: 0.02, 4: 2e-5, 8: 1e-13}[q.dtype.itemsize]
    for isa in isas:
        with using_isa(isa):
            got = attend(q, k, v, threads=1, **rules)
        check_same_bits(got.output, output, f"outputs on {isa}")
        check_same_bits(got.lse, lse, f"log-sum-exps on {isa}")
        np.testing.assert_allclose(got.output.astype(np.float64), exact, rtol=tolerance, atol=tolerance)


SLOPES = np.array([0.3, -0.2])
TABLE = np.array([[3, 1], [4, 1]], np.int16)


def placed(mask, queries, keys, align="end"):
    """The mask, with what rules that read positions need beside it where lengths differ."""
    return mask if queries == keys else mask & window(None, None, align=align)


MASKS = {
    "causal": lambda n, m: causal(align="end"),
    "full": lambda n, m: placed(full(), n, m),
    "window": lambda n, m: window(5, align="end"),
    "wide window": lambda n, m: window(90, 2, align="start"),
    "right window": lambda n, m: window(None, 3, align="end"),
    "empty window": lambda n, m: window(0, 0, align="start") & ~window(0, 0, align="start"),
    "dilated": lambda n, m: dilated(3, align="end"),
    "not dilated": lambda n, m: ~dilated(5, align="end") & window(70, 2, align="end"),
    "prefix": lambda n, m: causal(align="end") | prefix(20),
    "not": lambda n, m: ~window(7, 7, align="end"),
    "blocks": lambda n, m: placed(blocks(random(HEADS, -(-n // 16) + m // 16, -(-m // 16)) > 0, 16), n, m, "start"),
    "dense": lambda n, m: placed(dense(random(HEADS, n, m) > 0), n, m),
    "dense in a window": lambda n, m: dense(random(1, n, m) > 0) & window(60, align="end"),
    "where": lambda n, m: placed(where(lambda batch, head, query, key: (key * 3 + query + head) % 5 != 0), n, m),
    "where on arrays": lambda n, m: placed(
        where(lambda batch, head, query, key: TABLE[head, query % 2] > key % 4), n, m, "start"
    ),
    "documents": lambda n, m: documents(split_up(m), queries=split_up(n)) & causal(align="end"),
}
SCORES = {
    "nothing": lambda n, m: (),
    "scale": lambda n, m: scale(0.25),
    "softcap": lambda n, m: softcap(1.5),
    "alibi": lambda n, m: alibi(HEADS),
    "bias": lambda n, m: bias(random(HEADS, n, m)),
    "bias of keys": lambda n, m: bias(random(1, m, dtype=np.float64)),
    "half bias": lambda n, m: bias(random(n, 1, dtype=np.float16)),
    "bfloat16 bias": lambda n, m: bias(random(HEADS, 1, m, dtype=ml_dtypes.bfloat16)),
    "clipped": lambda n, m: relative(random(HEADS, 9), 4),
    "buckets": lambda n, m: relative(random(HEADS, 8), 20, bidirectional=True),
    "several": lambda n, m: [alibi(HEADS), softcap(3.0), lambda s, b, h, q, k: s * s - SLOPES[h]],
    "functions": lambda n, m: (
        lambda s, b, h, q, k: np.where(
            s > 0, np.log(1 + np.exp(s)), functions.sigmoid(s) - np.sqrt(abs(q - k) / (1 + k))
        )
    ),
    "integers": lambda n, m: lambda s, b, h, q, k: s + (q // 3 - (k - q) % 5) * 0.01 + TABLE[h, k // 200],
}


def split_up(n):
    first = n // 3
    return [first, n - first - 1, 1] if n > 1 else [n, 0, 0]


COMBINATIONS = all_pairs(sorted(MASKS), sorted(SCORES))


@pytest.mark.parametrize("one", COMBINATIONS, ids=str)
def test_any_combination_gives_the_canonical_bits(one):
    for queries, keys, batches in one.sizes():
        lead = (2, HEADS) if batches else (HEADS,)
        q, k = random(*lead, queries, 5, dtype=one.dtype), random(*lead, keys, 5, dtype=one.dtype)
        v = random(*lead, keys, 3, dtype=one.dtype)
        check(
            q, k, v, isas=[one.isa], mask=MASKS[one.mask](queries, keys), score=SCORES[one.score](queries, keys),
            sink=random(HEADS, dtype=one.dtype) if one.sink else None,
        )  # fmt: skip


@pytest.mark.parametrize("left", [0, 3, 15, 16, 63, 64, 100, 127, 128, 129, 2100])
def test_windows_across_tiles_blocks_and_segments(left):
    q, k, v = random(150, 4), random(2400, 4), random(2400, 2)
    check(q, k, v, isas=ISAS, mask=window(left, align="end"))
    check(q, k, v, isas=ISAS, mask=window(left, 3, align="end"), score=softcap(2.0))


@pytest.mark.parametrize("mask", sorted(set(MASKS) - {"empty window", "full"}))
def test_hidden_keys_and_values_are_never_touched(mask):
    n = 40
    q, k, v = random(HEADS, n, 3), random(HEADS, n, 3), random(HEADS, n, 20)
    rule = MASKS[mask](n, n)
    if np.ndim(clearhead.rules.masks.visible(rule, n, n, lead=(HEADS,))) == 2:
        check_hidden(attention, q, k, v, mask=rule)
    spoilt = v.copy()
    spoilt[0, 7] = np.nan
    spoilt[1, 30] = np.inf
    check_same_bits(attention(q, k, spoilt, mask=rule), canonical.attention(q, k, spoilt, mask=rule)[0])


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("isa", ISAS)
def test_sixteen_bits_are_widened_exactly_and_rounded_once(isa, dtype):
    every = np.arange(1 << 16, dtype=np.uint16).view(dtype).reshape(-1, 1, 64)
    one = np.zeros((1024, 1, 64), dtype)
    with using_isa(isa):  # one key: the output is the value
        check_same_bits(attention(one, one, every).astype(np.float32), (every + one).astype(np.float32))
        q, k, v = (random(HEADS, 140, 20, seed=seed).astype(dtype) for seed in range(3))
        check_same_bits(attention(q, k, v).astype(np.float32), canonical.attention(q, k, v)[0].astype(np.float32))
        check_same_bits(attend(q, k, v).lse, canonical.attention(q, k, v)[1])
        odd = [x[..., ::-1, 1::2] for x in (q, k, v)]
        check_same_bits(attention(*odd).astype(np.float32), canonical.attention(*odd)[0].astype(np.float32))
        tiny = (random(HEADS, 30, 4) * 1e-5).astype(dtype)  # subnormal results
        check_same_bits(
            attention(tiny, tiny, tiny).astype(np.float32), canonical.attention(tiny, tiny, tiny)[0].astype(np.float32)
        )


def test_scores_beyond_float16_do_not_overflow():
    q = np.full((2, 64), 200, np.float16)
    k = np.stack([np.full(64, 200), np.full(64, 199)]).astype(np.float16)
    v = np.array([[1], [2]], np.float16)
    assert attention(q, k, v, scale=1.0).ravel().tolist() == [1, 1]  # 2,560,000 beats 2,547,200


def test_a_mask_written_in_several_ways_gives_the_same_bits():
    q, k, v = random(HEADS, 300, 8), random(HEADS, 300, 8), random(HEADS, 300, 8)
    table = np.tri(300, dtype=bool)
    plain = attention(q, k, v)
    for mask in (window(None), where(lambda b, h, q, k: k <= q), dense(table), dense(table) & full(), ~~causal()):
        check_same_bits(attention(q, k, v, mask=mask), plain)


def test_packed_documents_give_the_bits_that_each_gives_alone():
    lengths = [1, 130, 0, 64, 200, 5]
    q, k, v = random(HEADS, 400, 8), random(HEADS, 400, 8), random(HEADS, 400, 8)
    for mask in (causal(), full(), window(20)):
        packed = attention(q, k, v, mask=documents(lengths) & mask, score=alibi(HEADS))
        start = 0
        for n in lengths:
            part = np.s_[:, start : start + n]
            check_same_bits(packed[part], attention(q[part], k[part], v[part], mask=mask, score=alibi(HEADS)))
            start += n


def test_rules_of_one_form_share_a_kernel():
    x = random(HEADS, 20, 4)
    attention(x, x, x, score=softcap(30.0))
    before = machine.compilations
    attention(x, x, x, score=softcap(50.0))
    attention(x[:, :7], x[:, :7], x[:, :7], score=softcap(20.0))
    attention(x, x, x, score=lambda s, b, h, q, k: 7.0 * functions.tanh(s * (1 / 7)))
    assert machine.compilations == before


def test_arrays_are_read_in_place_in_every_call():
    x, table = random(HEADS, 20, 4), np.zeros((20, 20))
    rule, seen = bias(table), np.tri(20, dtype=bool)
    mask = dense(seen)
    first = attention(x, x, x, score=rule, mask=mask)
    table[:] = random(20, 20)
    seen[5, 2] = False
    check_same_bits(attention(x, x, x, score=rule, mask=mask), canonical.attention(x, x, x, score=rule, mask=mask)[0])
    assert not np.array_equal(attention(x, x, x, score=rule, mask=mask), first)


@pytest.mark.parametrize(
    ("array", "along_keys"),
    [
        (lambda n, m: random(n, m), True),
        (lambda n, m: random(n, m + 5)[::-1, :m], True),
        (lambda n, m: np.broadcast_to(random(m), (n, m)), True),
        (lambda n, m: random(m, n).T, False),
        (lambda n, m: random(n, m)[:, ::-1], False),
        (lambda n, m: random(n, 2 * m)[:, ::2], False),
        (lambda n, m: random(n, 1), False),
        (lambda n, m: random(n, m, dtype=np.float64), False),
    ],
    ids=["dense", "rows backwards", "one row", "transposed", "keys backwards", "every second", "queries", "f64"],
)
def test_biases_are_read_along_the_keys_only_where_these_lie_side_by_side(array, along_keys):
    q, k, v = random(HEADS, 70, 8), random(HEADS, 150, 8, seed=1), random(HEADS, 150, 8, seed=2)
    view = array(70, 150)
    rules = {"mask": causal(align="end"), "score": bias(view)}
    assert bool(clearhead.kernel_for(clearhead.problem(q, k, v, **rules)).spec.variant.key_rows) == along_keys
    check(q, k, v, **rules)
    if view.shape == (70, 150) and view.dtype == np.float32:
        got, same = (attend(q, k, v, mask=rules["mask"], score=bias(x)).backward(q) for x in (view, view.copy()))
        for name in ("q", "k", "v"):
            check_same_bits(getattr(got, name), getattr(same, name), name)


def test_blocks_ruled_out_beforehand_cost_nothing():
    x = random(1, 2048, 4)
    asked = clearhead.problem(x, x, x, mask=where(lambda b, h, q, k: (k <= q) & (k > q - 100)))
    kinds = asked.rules.kinds([(64 * i, 64, 0, 0, 2048) for i in range(32)], 128, 1, 1)
    assert (kinds != 0).sum() <= 32 * 3


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: attention(x, x, x, mask=dense(np.ones((3, 3), bool))), ["dense(array(3, 3))", "20"]),
        (lambda x: attention(x, x, x, score=bias(np.ones((3, 20)))), ["bias(array(3, 20))", "20"]),
        (lambda x: attention(x, x, x, score=alibi(3)), ["alibi", "2 heads"]),
        (lambda x: attention(x, x, x, mask=documents([3, 4])), ["documents([3, 4])", "7 queries", "20"]),
        (lambda x: attention(x, x, x, sink=np.ones(3)), ["sink", "(3,)", "(2,)"]),
        (lambda x: attention(x, x, x, score="softcap"), ["'softcap'", "softcap("]),
        (lambda x: attention(x, x, x, score=lambda s: s), ["positional argument", "score, batch, head, query, key"]),
        (lambda x: attention(x, x, x, mask=where(lambda b, h, q, k: k - q)), ["compare", "key <= query"]),
        (lambda x: attention(x, x, x, mask=causal(align="end") & window(3, align="start")), ["start and end"]),
        (lambda x: window(-1), ["-1"]),
        (lambda x: softcap(0), ["softcap(0)"]),
        (lambda x: documents(ids=[1, 2, 1]), ["come back"]),
        (lambda x: blocks(np.ones((2, 2)), 4), ["float64", "booleans"]),
    ],
)
def test_wrong_rules_are_refused_with_a_next_step(call, words):
    with pytest.raises(clearhead.InputError) as caught:
        call(random(HEADS, 20, 4))
    assert all(word in str(caught.value) for word in words), caught.value
