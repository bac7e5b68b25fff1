"""Whole numbers in rules are Python's, and a pair for which Python has no answer is an error that names the line."""

import math
from contextlib import nullcontext

import numpy as np
import pytest

import clearhead
from clearhead import (
    KeyValueCache,
    TraceError,
    attend,
    attention,
    bias,
    causal,
    dense,
    documents,
    full,
    where,
    window,
)  # fmt: skip
from clearhead.machine.target import native_isas
from clearhead.rules.evaluation import evaluate
from clearhead.rules.expression import Expression, Formula
from clearhead.rules.faults import faults
from clearhead.rules.ranges import ranges
from clearhead.testing import using_isa
from tests.kernels.combinations import in_turns, isas_and_dtypes

ISAS = native_isas()
NAMES = ("score", "batch", "head", "query", "key")
TEN = np.arange(10.0)
LARGE = np.array([3, 2**63, 5, 2**64 - 1], np.uint64)
SIGNED = np.array([0, 3, -2, 7], np.int8)
TINY = np.array([-(2**63), 2**63 - 1, 0], np.int64)


def random(*shape, dtype=np.float64, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def by_hand(rule, q, k, v, seen):
    """Attention whose rule Python calls pair by pair, with its own whole numbers."""
    scores = np.einsum("hnd,hmd->hnm", *(x.astype(np.float64) for x in (q, k))) / math.sqrt(q.shape[-1])
    for h, i, j in np.argwhere(np.broadcast_to(seen, scores.shape)).tolist():
        scores[h, i, j] = rule(scores[h, i, j], 0, h, i + k.shape[-2] - q.shape[-2], j)
    scores = np.where(seen, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v.astype(np.float64)


# What Python answers


def far(key):
    """A position that only 64 bits hold once it is squared."""
    return key + 60_000


VALUED = {
    "a product over 32 bits": lambda score, batch, head, query, key: np.where(
        far(query) * far(key) > 2**31, score, -9.0
    ),
    "a product near 64 bits": lambda score, batch, head, query, key: score + (far(key) ** 3 * 40_000) % 97,
    "a sum over 32 bits": lambda score, batch, head, query, key: score + (2**31 + key) * 1e-9,
    "a difference": lambda score, batch, head, query, key: score * (((query - key) << 40) >> 39),
    "a quotient of negative numbers": lambda score, batch, head, query, key: score + (-key - 1) // 3,
    "a rest of negative numbers": lambda score, batch, head, query, key: score + (query - 2 * key) % -7,
    "a rest of much": lambda score, batch, head, query, key: score + (far(key) * 1_000_003) % (2**31 - 1) * 1e-9,
    "a negative index": lambda score, batch, head, query, key: score + TEN[-1 - key % 10],
    "an index of the last": lambda score, batch, head, query, key: score + TEN[key % 10 - 10],
    "small numbers of a table": lambda score, batch, head, query, key: score + SIGNED[key % 4] * SIGNED[query % 4],
    "the ends of 64 bits": lambda score, batch, head, query, key: score + (TINY[key % 3] > key),
    "fmin": lambda score, batch, head, query, key: np.fmin(score, np.where(key % 2 == 0, np.nan, 0.25)),
    "fmax": lambda score, batch, head, query, key: np.fmax(np.where(key % 3 == 0, np.nan, score), -0.5),
    "fmin of whole numbers": lambda score, batch, head, query, key: score + np.fmin(key, query // 2),
    "fmax of whole numbers": lambda score, batch, head, query, key: score + np.fmax(key, 3),
    "unsigned numbers": lambda score, batch, head, query, key: score + LARGE[np.where(key % 2 == 0, 0, 2)],
}


@pytest.mark.parametrize(
    ("name", "isa", "turn"), [(name, isa, n) for n, (name, isa) in enumerate(in_turns(VALUED, ISAS))]
)
def test_whole_numbers_are_pythons(name, isa, turn):
    """Each rule on two instruction sets: many queries of float32 and few of float64, in arrays or a cache, in turns."""
    rule, (dtype, queries) = VALUED[name], [(np.float32, 40), (np.float64, 2)][turn % 2]
    q, k, v = random(2, queries, 4, dtype=dtype), random(2, 40, 4, dtype=dtype, seed=1), random(2, 40, 3, dtype=dtype)
    seen = np.tri(queries, 40, 40 - queries, dtype=bool)
    right = by_hand(rule, q, k, v, seen)
    tolerance = 2e-5 if dtype == np.float32 else 1e-12
    with using_isa(isa):
        if turn // 2 % 2:
            got = attention(q, k, v, mask=causal(align="end"), score=rule)
        else:
            cache = KeyValueCache()
            cache.append(k, v)
            got = attention(q, cache, score=rule)
    np.testing.assert_allclose(got, right, tolerance, tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("queries", [1, 70])
def test_products_of_far_positions_are_pythons(dtype, queries):
    n = 70_000
    k, v = np.zeros((n, 4), dtype), np.arange(n, dtype=dtype)[:, None]

    def rule(score, batch, head, query, key):
        return np.where(query * key > 0, score, score - 100.0)

    got = attention(k[-queries:], k, v, mask=causal(align="end"), score=rule)
    assert got[-1, 0] == pytest.approx(n / 2, rel=1e-6)  # 26403 with 32 bits, which many products do not fit


def test_whole_numbers_beyond_64_bits_are_an_error():
    x = random(30, 4)

    def rule(score, batch, head, query, key):
        return score + (far(key) ** 4) % 7

    with pytest.raises(TraceError, match=r"test_faults.py, line \d+, .*\*\* 4.*64 bits.*floats"):
        attention(x, x, x, score=rule)


# What Python has no answer for


def beyond(score, batch, head, query, key):
    return score + TEN[key]


def before(score, batch, head, query, key):
    return score + TEN[5 - key]


def divided(score, batch, head, query, key):
    return score + 1 // (key - 10)


def rest(score, batch, head, query, key):
    return score + query % (key - 10)


def unsigned(score, batch, head, query, key):
    return score + LARGE[np.where(key == 10, 1, 0)]


def chosen(score, batch, head, query, key):
    return np.where(score > -1e30, score + TEN[key], score)


def in_a_mask(batch, head, query, key):
    return TEN[key] >= 0


FAULTS = {  # and the first key at fault; at no key before is one
    beyond: 10, divided: 10, rest: 10, unsigned: 10, chosen: 10, before: 16,
}  # fmt: skip
SAYS = {
    beyond: "reads place 10 of an axis of an array of shape (10,)", divided: "divides by 0", rest: "divides by 0",
    unsigned: "reads a number of 2⁶³ or more", chosen: "reads place 10", before: "reads place -11",
}  # fmt: skip


def operands(queries=40, keys=40, dtype=np.float64):
    return (
        random(2, queries, 8, dtype=dtype),
        random(1, keys, 8, dtype=dtype, seed=1),
        random(1, keys, 5, dtype=dtype, seed=2),
    )


def cached(k, v, step=17, **options):
    cache = KeyValueCache(**options)
    for start in range(0, k.shape[-2], step):
        cache.append(k[:, start : start + step], v[:, start : start + step])
    return cache


def along(done, d_out):
    return done.jvp(clearhead.Direction(q=d_out[..., :1] + np.zeros(8)))


WAYS = {
    "attention": lambda q, k, v, **rules: attention(q, k, v, **rules),
    "threads": lambda q, k, v, **rules: attention(q, k, v, threads=3, **rules),
    "few queries": lambda q, k, v, **rules: attention(q[:, -2:], k, v, **rules),
    "attend": lambda q, k, v, **rules: attend(q, k, v, **rules).lse,
    "weights": lambda q, k, v, **rules: np.asarray(clearhead.weights(q, k, **rules)),
    "one weight": lambda q, k, v, **rules: clearhead.weights(q, k, **rules)[0, -1, 3],
    "a summary": lambda q, k, v, **rules: clearhead.weights(q, k, **rules).summary("entropy"),
    "weights of a call": lambda q, k, v, **rules: attend(q, k, v, **rules).weights.row(-1),
    "weights of a known sum": lambda q, k, v, **rules: clearhead.weights(
        q, k, lse=np.zeros(q.shape[:-1]), **rules
    ).row(-1),
    "gradients": lambda q, k, v, **rules: attend(q, k, v, **rules).backward(np.ones((*q.shape[:-1], 5))).q,
    "tangents": lambda q, k, v, **rules: along(attend(q, k, v, **rules), q)[0],
    "a cache": lambda q, k, v, **rules: attention(q[:, -3:], cached(k, v), **rules),
    "a cache of 8 bits": lambda q, k, v, **rules: attention(
        q[:, -3:].astype("f4"), cached(k.astype("f4"), v.astype("f4"), dtype="int8"), **rules
    ),
    "a cache with a window": lambda q, k, v, mask, **rules: attention(
        q[:, -3:], cached(k, v, 3, window=33), mask=mask & window(32, align="end"), **rules
    ),
    "weights over a cache": lambda q, k, v, **rules: clearhead.weights(q[:, -3:], cached(k, v), **rules).row(0),
    "16 bits": lambda q, k, v, **rules: attend(*(x.astype(np.float16) for x in (q, k, v)), **rules).output,
}  # fmt: skip


PAIRS = [
    *(pytest.param("attend", rule, id=rule.__name__) for rule in FAULTS),
    *(pytest.param(way, rule, id=f"{way}, {rule.__name__}") for way in WAYS for rule in (beyond, divided)),
]
HIDDEN = [*(("attend", rule) for rule in FAULTS), *in_turns(WAYS, (beyond, divided), 1)]


@pytest.mark.parametrize(("way", "rule"), PAIRS)
def test_a_pair_without_an_answer_is_an_error_where_it_is_seen(way, rule):
    q, k, v = operands()
    with pytest.raises(TraceError) as caught:
        WAYS[way](q, k, v, mask=causal(align="end"), score=rule)
    message, line = str(caught.value), rule.__code__.co_firstlineno + 1
    assert f"test_faults.py, line {line}, " in message
    assert SAYS[rule] in message
    assert f"and key {FAULTS[rule]} of head 0" in message
    assert any(cure in message for cure in ("np.clip", "np.maximum", "astype(float)"))


@pytest.mark.parametrize(("way", "rule"), [pytest.param(*one, id=f"{one[0]}, {one[1].__name__}") for one in HIDDEN])
def test_a_pair_without_an_answer_is_none_where_it_is_hidden(way, rule):
    q, k, v = operands()
    seen = np.tri(40, dtype=bool)
    seen[:, 10:] = False
    rows = 2 if way == "few queries" else 3 if "cache" in way else 40
    rules = {"mask": causal(align="end") & dense(seen[-rows:])}
    added = np.array([[rule(0.0, 0, 0, query, key % 10) for key in range(40)] for query in range(40 - rows, 40)])
    got, wanted = (WAYS[way](q, k, v, score=score, **rules) for score in (rule, bias(added.astype(float))))
    got, wanted = (x["entropy"] if way == "a summary" else np.asarray(x) for x in (got, wanted))
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("rule", "isa", "dtype"),
    [pytest.param(rule, *way, id=f"{rule.__name__}-{way[0]}") for rule, way in in_turns(FAULTS, isas_and_dtypes(), 3)],
)
def test_every_instruction_set_finds_the_pair(rule, isa, dtype):
    queries = 150 if dtype == np.float32 else 3
    q, k, v = operands(queries, 150, dtype)
    with using_isa(isa):
        for keys in (150, 10):  # in one kernel
            seen = np.broadcast_to(np.arange(150) < keys, (queries, 150))
            with pytest.raises(TraceError, match="line") if keys == 150 else nullcontext():
                got = attention(q, k, v, mask=causal(align="end") & dense(seen), score=rule)
        assert np.isfinite(got).all()


@pytest.mark.parametrize("way", WAYS)
def test_a_mask_without_an_answer_is_an_error(way):
    q, k, v = operands()
    with pytest.raises(
        TraceError, match=r"test_faults.py, line \d+, `return TEN\[key\] >= 0`: reads place 10 .* key 10"
    ):
        WAYS[way](q, k, v, mask=causal(align="end") & where(in_a_mask))


def test_what_a_condition_leaves_out_is_no_fault():
    q, k, v = operands()

    def guarded(score, batch, head, query, key):
        return np.where(key < 10, score + TEN[key], score)

    def clipped(score, batch, head, query, key):
        return np.where(key < 10, score + TEN[np.minimum(key, 9)], score)

    np.testing.assert_array_equal(attention(q, k, v, score=guarded), attention(q, k, v, score=clipped))
    both = where(lambda batch, head, query, key: (key < 10) & (TEN[key] >= 0))
    np.testing.assert_array_equal(
        attention(q, k, v, mask=causal() & both), attention(q, k, v, mask=causal() & clearhead.prefix(10))
    )


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_the_head_at_fault_is_named(lead):
    x = random(*lead, 20, 4)
    heads = np.arange(max(1, math.prod(lead[-1:])))

    def rule(score, batch, head, query, key):
        return score + 1 // (head - len(heads) + 1 + np.where(key == 7, 0, 9))

    with pytest.raises(TraceError, match=f"divides by 0, for query 7 and key 7 of head {len(heads) - 1}"):
        attention(x, x, x, score=rule)


def test_of_several_rules_the_one_at_fault_is_named():
    q, k, v = operands()

    def later(score, batch, head, query, key):
        return score + TEN[key + 1 - 1]

    with pytest.raises(TraceError, match=rf"line {later.__code__.co_firstlineno + 1}, .*place 10"):
        attention(q, k, v, score=[clearhead.softcap(20.0), lambda s, b, h, query, key: s * 2, later])


def test_the_score_that_a_rule_is_given_decides_its_fault():
    q = k = np.eye(12)

    def alike(score, batch, head, query, key):
        return np.where(score > 1, score + TEN[key], score)

    attention(q, k, k, scale=1.0, score=alike)  # no score is above 1
    with pytest.raises(TraceError, match="for query 10 and key 10"):
        attention(q, k, k, scale=1.0, score=[clearhead.scale(3.0), alike])
    cache = cached(k[None], k[None])
    with pytest.raises(TraceError, match="for query 11 and key 11"):
        attention(3 * q[None, -1:], cache, scale=1.0, score=alike)


def test_documents_with_query_lengths_of_their_own_stand_beside_a_rule_at_fault():
    k, v, mask = random(30, 4), random(30, 4, seed=1), documents([12, 18], queries=[2, 5]) & causal(align="end")
    q = random(7, 4, seed=2)

    def rule(score, batch, head, query, key):
        return score + 1 // (key - 20)

    with pytest.raises(TraceError, match=r"1 // \(key - 20\).*divides by 0, for query 25 and key 20"):
        attention(q, k, v, mask=mask, score=rule)
    done = attend(q, k, v, mask=mask & dense(np.broadcast_to(np.arange(30) != 20, (7, 30))), score=rule)
    assert np.isfinite(done.output).all()


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_what_is_not_a_number_for_other_reasons_is_no_fault(number):
    q, k, v = operands()
    q[0, 5] = number
    v[0, 3] = number
    got = attention(q, k, v, score=lambda score, batch, head, query, key: score + TEN[np.where(query < 5, 0, key // 4)])
    assert np.isnan(got[0, 5]).any()
    assert np.isfinite(got[1, :3]).all()


def test_a_fault_far_back_in_long_sequences_is_found():
    x = np.zeros((3000, 2), np.float32)
    table = np.zeros(2999)
    with pytest.raises(TraceError, match=r"place 2999 .* for query 2999 and key 2999"):
        attention(x, x, x, score=lambda score, batch, head, query, key: score + table[key])
    attention(x, x, x, mask=window(5) & full(), score=lambda score, batch, head, query, key: score + table[key - 1])


def test_without_pairs_there_is_no_fault():
    x = np.zeros((0, 2))
    assert attention(x, x, x, score=beyond).shape == (0, 2)
    assert attention(np.zeros((3, 2)), x, x, mask=full(), score=divided).tolist() == [[0, 0]] * 3


# What is known before the call


def test_ranges_hold_every_value():
    rng, leaf, number = (
        np.random.default_rng(0),
        Expression("key", "int"),
        lambda x: Expression("constant", "int", value=x),
    )
    table = rng.integers(-5, 9, 6).astype(np.int8)
    for _ in range(300):
        e, arrays = leaf, (clearhead.rules.expression.immutable_copy(table),)
        for _ in range(int(rng.integers(1, 6))):
            op = str(rng.choice(["add", "sub", "mul", "min", "max", "floordiv", "mod", "neg", "abs", "load", "where"]))
            other = number(int(rng.integers(-9, 10)))
            match op:
                case "neg" | "abs":
                    e = Expression(op, "int", (e,))
                case "load":
                    e = Expression("load", "int", (Expression("mod", "int", (e, number(6))),), array=0)
                case "where":
                    e = Expression("where", "int", (Expression("lt", "bool", (e, other)), e, other))
                case _:
                    e = Expression(op, "int", (e, other) if rng.random() < 0.7 else (other, e))
        low, high = sorted(int(x) for x in rng.integers(-20, 20, 2))
        least, largest = ranges(Formula(e, arrays), {leaf: (low, high)})[e]
        values = evaluate(Formula(e, arrays), {"key": np.arange(low, high + 1)})
        assert least <= values.min(), e
        assert values.max() <= largest, e


@pytest.mark.parametrize(("low", "high", "fine"), [(0, 9, True), (-10, 9, True), (0, 10, False), (-11, 0, False)])
def test_what_stays_inside_its_array_is_shown_beforehand(low, high, fine):
    key = Expression("key", "int")
    read = Formula(Expression("load", "float", (key,), array=0), (TEN,))
    assert (faults(read, {key: (low, high)}) is None) == fine


# Rules of whole numbers, and what catches errors


@pytest.mark.parametrize(
    "rule",
    [
        lambda score, batch, head, query, key: key // 2,
        lambda score, batch, head, query, key: key,
        lambda score, batch, head, query, key: np.where(score > 0, key, query),
        lambda score, batch, head, query, key: np.where(key > 2, 1, 0),
        lambda score, batch, head, query, key: 3,
    ],
)
def test_a_rule_may_give_whole_numbers(rule):
    q, k, v = operands(7, 7)
    right = by_hand(rule, q, np.repeat(k, 2, 0), np.repeat(v, 2, 0), np.tri(7, dtype=bool))
    np.testing.assert_allclose(attention(q, k, v, score=rule), right, atol=1e-12)


def test_an_except_is_refused_for_stand_ins_do_not_fail():
    def rule(score, batch, head, query, key):
        try:
            return score * (1 // key)
        except ZeroDivisionError:
            return score

    x = np.eye(3)
    with pytest.raises(TraceError, match=r"test_faults\.py, line \d+, .*`except` cannot be traced.*where"):
        attention(x, x, x, score=rule)


@pytest.mark.parametrize(("queries", "keys"), [(0, 3), (3, 0), (0, 0)])
def test_tables_of_no_queries_or_no_keys_fit_calls_without(queries, keys):
    q, k = np.ones((queries, 2)), np.ones((keys, 2))
    tables = {"mask": dense(np.ones((queries, keys), bool)), "score": clearhead.bias(np.ones((queries, keys)))}
    done = attend(q, k, k, **tables)
    assert done.output.tolist() == [[0, 0]] * queries
    assert done.weights.shape == (queries, keys)
    assert done.backward(np.ones((queries, 2))).k.tolist() == [[0, 0]] * keys
