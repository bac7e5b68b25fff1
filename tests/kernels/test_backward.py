"""The backward kernel against the definition's gradients, on every instruction set, and its promises of bits.

Each score rule meets both dtypes, on two instruction sets: once without a mask of its own, once with one. Each mask
meets one of all kinds of kernel, in turns.
"""

from itertools import product

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearhead import (
    alibi,
    attend,
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
    softcap,
    where,
    window,
)  # fmt: skip
from clearhead.definition import textbook
from clearhead.definition.gradient import gradients
from clearhead.engine.problem import problem
from clearhead.gradients.launch import BackwardLaunch
from clearhead.machine.target import native_isas
from clearhead.rules.masks import visible
from clearhead.testing import check_same_bits, using_isa
from tests.arrays import random
from tests.kernels.combinations import each_in_turns, in_turns, isas_and_dtypes
from tests.kernels.test_rules import placed
from tests.strategies import LAYOUTS, laid_out

ISAS = native_isas()
HEADS = 2
TABLE = np.array([[3, 1], [4, 1]], np.int16)
SLOPES = np.array([0.3, -0.2])
MASKS = {
    "causal": lambda n, m: causal(align="end"),
    "full": lambda n, m: placed(full(), n, m),
    "window": lambda n, m: window(5, align="end"),
    "wide window": lambda n, m: window(90, 2, align="start"),
    "right window": lambda n, m: window(None, 3, align="end"),
    "nothing": lambda n, m: window(0, 0, align="start") & ~window(0, 0, align="start"),
    "dilated": lambda n, m: dilated(3, align="end"),
    "not dilated": lambda n, m: ~dilated(5, align="end") & window(70, 2, align="end"),
    "prefix": lambda n, m: causal(align="end") | prefix(20),
    "not": lambda n, m: ~window(7, 7, align="end"),
    "blocks": lambda n, m: placed(blocks(random(HEADS, -(-n // 16) + m // 16, -(-m // 16)) > 0, 16), n, m, "start"),
    "dense": lambda n, m: placed(dense(random(HEADS, n, m) > 0), n, m),
    "dense in a window": lambda n, m: dense(random(1, n, m) > 0) & window(60, align="end"),
    "where on arrays": lambda n, m: placed(
        where(lambda batch, head, query, key: TABLE[head, query % 2] > key % 4), n, m, "start"
    ),
    "documents": lambda n, m: documents(split_up(m), queries=split_up(n)) & causal(align="end"),
}
SCORES = {
    "nothing": lambda n, m, dtype: (),
    "softcap": lambda n, m, dtype: softcap(1.5),
    "alibi": lambda n, m, dtype: alibi(random(HEADS, dtype=dtype)),
    "bias": lambda n, m, dtype: bias(random(HEADS, n, m, dtype=dtype)),
    "bias of keys": lambda n, m, dtype: bias(random(1, m, dtype=dtype)),
    "bias of queries": lambda n, m, dtype: bias(random(n, 1, dtype=dtype)),
    "clipped": lambda n, m, dtype: relative(random(HEADS, 9, dtype=dtype), 4),
    "buckets": lambda n, m, dtype: relative(random(HEADS, 8, dtype=dtype), 20, bidirectional=True),
    "several": lambda n, m, dtype: [
        bias(random(1, m, dtype=dtype)),
        alibi(random(HEADS, dtype=dtype)),
        softcap(3.0),
        lambda s, b, h, q, k: s * s - SLOPES[h],
    ],
    "arrays": lambda n, m, dtype: of_arrays(
        random(n, m, dtype=dtype), random(40, dtype=dtype), random(9, 30, dtype=dtype)
    ),
    "functions": lambda n, m, dtype: (
        lambda s, b, h, q, k: np.where(
            s > 0, np.log(1 + np.exp(s)) * SLOPES[h], functions.sigmoid(s) - np.sqrt(abs(q - k) / (1 + abs(k)))
        )
    ),
}


def of_arrays(pairs, distances, few):
    """Read by pairs, by distances, and in turns."""
    far, (rows, columns), least = len(distances), pairs.shape, few.shape[1]

    def rule(s, b, h, q, k):
        return (
            s * distances[abs(q - k) % far]
            + pairs[abs(q) % rows, k % columns] * np.tanh(s)
            + few[abs(q) % 9, k % least] * 0.5
        )

    return rule


def split_up(n):
    first = n // 3
    return [first, n - first - 1, 1] if n > 1 else [n, 0, 0]


def wide(x):
    return None if x is None else np.asarray(x, np.float64)


def check(q, k, v, with_lse=True, **rules):
    """Every gradient is within rounding of the definition's."""
    done = attend(q, k, v, threads=1, **rules)
    d_out = random(*done.output.shape, seed=7).astype(q.dtype)
    d_lse = random(*done.lse.shape, seed=8, dtype=done.lse.dtype) if with_lse else None
    got = done.backward(d_out, d_lse)
    exact = gradients(
        *map(wide, (q, k, v, d_out, d_lse)), **(rules | ({"sink": wide(rules["sink"])} if "sink" in rules else {}))
    )
    near(got.q, exact.q, q.dtype)
    near(got.k, exact.k, q.dtype)
    near(got.v, exact.v, q.dtype)
    assert (got.sink is None) == (exact.sink is None)
    if got.sink is not None:
        near(got.sink, exact.sink, q.dtype)
    assert [len(x) for x in got.rules] == [len(x) for x in exact.rules]
    for some, others in zip(got.rules, exact.rules, strict=True):
        for a, b in zip(some, others, strict=True):
            near(a, b, q.dtype, k.shape[-2])  # distances up to there are factors of a slope's terms
    return got


def near(got, exact, dtype, factor=1):
    tolerance = {2: 0.03, 4: 2e-5, 8: 2e-13}[np.dtype(dtype).itemsize]
    assert got.shape == exact.shape
    size = factor * np.max(np.abs(exact), initial=1.0)
    np.testing.assert_allclose(got.astype(np.float64), exact, atol=tolerance * size, rtol=0)


COMBINATIONS = each_in_turns(  # the mask that shows nothing first: its score rule comes round again
    sorted(MASKS, key=lambda name: (name != "nothing", name)), sorted(SCORES)
)
FIRST, *OTHERS = isas_and_dtypes()


@pytest.mark.parametrize(  # another instruction set and another dtype than the combination's
    ("score", "isa", "dtype"), [(score, *way) for score, way in in_turns(sorted(SCORES), [*OTHERS, FIRST], 1)]
)
def test_every_rule(score, isa, dtype):
    q, k, v = random(2, HEADS, 90, 5, dtype=dtype), random(HEADS, 90, 5, dtype=dtype), random(HEADS, 90, 3, dtype=dtype)
    with using_isa(isa):
        check(q, k, v, score=SCORES[score](90, 90, dtype))


@pytest.mark.parametrize("one", COMBINATIONS, ids=str)
def test_any_combination(one):
    for (queries, keys, _), with_lse in zip(one.sizes(), (False, True), strict=True):
        q, k = random(HEADS, queries, 5, dtype=one.dtype), random(HEADS, keys, 5, dtype=one.dtype)
        v = random(HEADS, keys, 3, dtype=one.dtype)
        rules = {"sink": random(HEADS, dtype=one.dtype)} if one.sink else {}
        mask, score = MASKS[one.mask](queries, keys), SCORES[one.score](queries, keys, one.dtype)
        with using_isa(one.isa):
            check(q, k, v, with_lse, mask=mask, score=score, **rules)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dim", [1, 16, 17, 64, 80, 128])
@pytest.mark.parametrize("length", [1, 63, 64, 65, 200])
def test_dims_and_lengths(isa, dim, length):
    with using_isa(isa):
        check(random(length, dim), random(length, dim), random(length, dim + 3))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("left", [0, 15, 16, 63, 64, 65, 128, 300])
def test_windows_across_tiles_and_blocks(isa, left):
    with using_isa(isa):
        check(random(260, 4), random(400, 4), random(400, 2), mask=window(left, align="end"))
        check(random(260, 4), random(400, 4), random(400, 2), mask=window(left, 3, align="start"))


@given(LAYOUTS, LAYOUTS, LAYOUTS, st.sampled_from([3, 16, 64]))
def test_any_strides(a, b, c, dim):
    q, k, v = (laid_out(random(HEADS, 70, dim, seed=n), x) for n, x in enumerate((a, b, c)))
    got = check(q, k, v)
    dense_ones = [np.ascontiguousarray(x) for x in (q, k, v)]
    again = check(*dense_ones)
    for name in "qkv":
        check_same_bits(getattr(got, name), getattr(again, name), f"gradients of {name}")


@pytest.mark.parametrize(
    ("q", "k", "v"),
    [
        ((4, 70, 8), (2, 70, 8), (2, 70, 8)),  # grouped queries
        ((3, 4, 70, 8), (3, 1, 70, 8), (1, 70, 8)),  # one key head
        ((3, 4, 70, 8), (70, 8), (70, 8)),  # keys for all
        ((70, 8), (2, 70, 8), (3, 1, 70, 8)),  # queries for all
        ((2, 6, 70, 8), (3, 70, 8), (2, 3, 70, 8)),  # grouped and broadcast
        ((2, 6, 70, 8), (2, 1, 70, 8), (2, 3, 70, 8)),
    ],
)
def test_what_was_shared_is_summed(q, k, v):
    check(random(*q), random(*k), random(*v))
    check(random(*q), random(*k), random(*v), score=softcap(2.0))


@pytest.mark.parametrize("rules", [{}, {"score": "alibi"}, {"score": "buckets"}, {"score": "bias", "mask": "dense"}])
@pytest.mark.parametrize("heads", [1, 2, 6])
def test_any_number_of_threads_gives_the_same_bits(rules, heads):
    q, k, v, d_out = (random(heads, 1000, 32, seed=n) for n in range(4))
    given = {}
    if "score" in rules:
        score = {"alibi": alibi(heads), "buckets": relative(random(heads, 8), 20, bidirectional=True)}
        given["score"] = score.get(rules["score"]) or bias(random(1000, 1000))
    if "mask" in rules:
        given["mask"] = dense(random(1000, 1000) > 0)
    one = attend(q, k, v, threads=1, **given).backward(d_out)
    for threads in (2, 3, 5):
        got = attend(q, k, v, threads=threads, **given).backward(d_out)
        for name in "qkv":
            check_same_bits(getattr(got, name), getattr(one, name), f"gradients of {name} by {threads} threads")
        for a, b in zip(got.rules, one.rules, strict=True):
            check_same_bits(a[0], b[0], "gradients of a rule's array")


FEW, WHOLE = random(2, 4), random(8, 8)
SHARED = {  # heads that read each other's numbers, though each names itself in an index
    "counted from the end": lambda s, b, h, i, j: s + WHOLE[-h, j % 8],
    "in turns": lambda s, b, h, i, j: s + WHOLE[h % 2, j % 8],
    "rows and columns": lambda s, b, h, i, j: s + WHOLE[h, j % 8] * WHOLE[j % 8, h],
    "in turns, by batches": lambda s, b, h, i, j: s + FEW[b % 2, j % 4],
}


@pytest.mark.parametrize("name", SHARED)
def test_heads_that_share_numbers_of_a_rule_add_to_them_in_one_order(name):
    lead = (8, 1) if "batches" in name else (8,)
    q, k, v, d_out = (random(*lead, 300, 16, seed=n) for n in range(4))
    one, four = (attend(q, k, v, score=SHARED[name], threads=n).backward(d_out).rules[0][0] for n in (1, 4))
    check_same_bits(four, one, "gradients of a rule's array")
    near(one, gradients(*map(wide, (q, k, v, d_out)), score=SHARED[name]).rules[0][0], q.dtype, 300)


def test_which_heads_must_keep_one_order():
    x = random(8, 9, 4)
    own = {"its own": lambda s, b, h, i, j: s + WHOLE[h, j % 8]}
    for name, rule in (SHARED | own).items():
        asked = problem(x, x, x, mask=causal(), score=rule)
        assert BackwardLaunch(asked, asked.output, (0,), False).in_one_chain == (name != "its own"), name


def test_an_index_may_depend_on_the_score():
    x, signs = random(2, 70, 4), random(2, 70)
    check(x, x, x, score=lambda s, b, h, i, j: s + signs[(s > 0) * 1, j])


@pytest.mark.parametrize("lead", [(1,), (2, 1)])
def test_expanded_heads_have_gradients_of_their_own(lead):
    shape = (*lead[:-1], 4, 70, 8)
    q, k, v = random(*shape), random(*lead, 70, 8, seed=1), random(*lead, 70, 8, seed=2)
    assert check(q, *(np.broadcast_to(x, shape) for x in (k, v))).k.shape == shape


@pytest.mark.parametrize(
    ("isa", "dtype", "rules"),
    [
        (*kind, ({}, {"score": softcap(2.0), "sink": random(HEADS)})[with_rules])
        for kind, with_rules in in_turns(product(ISAS, [np.float16, ml_dtypes.bfloat16]), [0, 1, 1, 0], 1)
    ],
)
def test_sixteen_bits(isa, dtype, rules):
    q, k, v = (random(HEADS, 140, 20, seed=seed).astype(dtype) for seed in range(3))
    with using_isa(isa):
        got = check(q, k, v, **rules)
        assert got.q.dtype == got.k.dtype == got.v.dtype == dtype
        check(*(x[..., ::-1, 1::2] for x in (q, k, v)), **rules)


@pytest.mark.parametrize("one", [one for one in COMBINATIONS if one.mask not in ("full", "nothing")], ids=str)
def test_hidden_pairs_are_never_touched(one):
    n = 150
    rule = {"mask": MASKS[one.mask](n, n), "score": SCORES[one.score](n, n, one.dtype)}
    if one.sink:
        rule["sink"] = random(HEADS, dtype=one.dtype)
    q, k, v, d_out = (random(HEADS, n, 20, dtype=one.dtype, seed=seed) for seed in range(4))
    seen = np.broadcast_to(visible(rule["mask"], n, n, lead=(HEADS,)), (HEADS, n, n))
    with using_isa(one.isa):
        before = attend(q, k, v, **rule).backward(d_out)
        for at, poison in ((7, np.nan), (70, np.inf), (149, -np.inf)):
            spoilt = [x.copy() for x in (k, v)]
            for x in spoilt:
                x[:, at] = poison
            after = attend(q, *spoilt, **rule).backward(d_out)
            blind = ~seen[:, :, at]
            check_same_bits(after.q[blind], before.q[blind], "gradients of queries that do not see the key")
            spoilt = [x.copy() for x in (q, d_out)]
            for x in spoilt:
                x[:, at] = poison
            after = attend(spoilt[0], k, v, **rule).backward(spoilt[1])
            unseen = ~seen[:, at, :]
            check_same_bits(after.k[unseen], before.k[unseen], "gradients of keys that the query does not see")
            check_same_bits(after.v[unseen], before.v[unseen], "gradients of values that the query does not see")


def test_who_sees_nothing_has_no_gradient():
    q, k, v = random(5, 4), random(3, 4), random(3, 4)
    got = attend(q, k, v, mask=causal(align="end")).backward(np.full((5, 4), np.nan, np.float32))
    assert not got.q[:2].any()
    nothing = attend(q, k[:0], v[:0], mask=full()).backward(np.ones((5, 4), np.float32))
    assert not nothing.q.any()
    assert nothing.k.shape == (0, 4)


def test_scores_of_minus_infinity_have_no_gradient():
    q, k, v = random(5, 4), random(5, 4), random(5, 4)
    lowest = np.where(np.tri(5, dtype=bool), 0, -np.inf)
    lowest[2] = -np.inf
    got = attend(q, k, v, mask=full(), score=bias(lowest)).backward(np.ones((5, 4), np.float32))
    assert np.isfinite(got.q).all()
    assert np.isfinite(got.k).all()
    assert not got.q[2].any()


def test_gradients_of_long_sequences_are_as_near_as_the_plain_way():
    q, k, v, d_out = (random(1500, 16, seed=n) for n in range(4))
    got, exact = attend(q, k, v).backward(d_out), gradients(*map(wide, (q, k, v, d_out)))
    plain = gradients(q, k, v, d_out)
    for name in "qkv":
        error, theirs = (np.abs(getattr(x, name) - getattr(exact, name)).mean() for x in (got, plain))
        assert error <= 1.5 * theirs
    assert textbook.attention(q, k, v).dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_narrow_gradients_are_as_good_as_their_last_digit(dtype):
    """They start from the output before it was rounded, or large scores would cost digits."""
    rng = np.random.default_rng(7)
    q, k, v, d_out = ((10 * rng.random((2, 8, 8)) - 5).astype(dtype) for _ in range(4))
    got = attend(q, k, v).backward(d_out)
    want = gradients(*(x.astype(np.float64) for x in (q, k, v, d_out)))
    for name in "qkv":
        exact = getattr(want, name)
        error = np.abs(getattr(got, name).astype(np.float64) - exact)
        assert (error <= 0.51 * np.spacing(np.abs(exact).astype(dtype)).astype(np.float64) + 2e-5).all(), name


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("isa", ISAS)
def test_what_many_heads_ask_is_summed_before_it_is_rounded(isa, dtype):
    q, k, v, d_out = (random(*lead, 20, 20, seed=n).astype(dtype) for n, lead in enumerate([(), (1,), (1,), (1,)]))
    k, v, d_out = (np.repeat(x, 256, 0) for x in (k, v, d_out))
    with using_isa(isa):
        got = attend(q, k, v).backward(d_out).q
        assert attend(np.broadcast_to(q, k.shape), k, v).backward(d_out).q.dtype == dtype
    exact = gradients(*map(wide, (q, k, v, d_out))).q
    error = np.abs(wide(got) - exact)
    assert (error <= 0.51 * np.spacing(np.abs(exact).astype(dtype)).astype(np.float64) + 1e-3).all()
