"""Forward mode and second derivatives against the definition, and the definition against finite differences."""

import tracemalloc
from dataclasses import replace
from functools import partial

import ml_dtypes
import numpy as np
import pytest

from clearhead import (
    Direction,
    DtypeError,
    InputError,
    ShapeError,
    alibi,
    attend,
    bias,
    causal,
    dense,
    documents,
    full,
    functions,
    merge,
    relative,
    softcap,
    where,
    window,
)  # fmt: skip
from clearhead.definition.gradient import gradients
from clearhead.definition.tangent import second
from clearhead.definition.textbook import attention
from tests import arrays

random = partial(arrays.random, dtype=np.float64)


def wavy(weights):
    return lambda s, batch, head, query, key: s * weights[key % 4] + functions.tanh(s * weights[head])


def picked(weights):
    places = np.random.default_rng(5).integers(-4, 4, (40, 40))
    return lambda s, batch, head, query, key: s + weights[places[query, key]] * s


TABLE, WEIGHTS, SLOPES, BUCKETS = random(40, 40), random(4), random(4) ** 2, random(4, 8)
CASES = {
    "causal": {},
    "full": {"mask": full()},
    "window": {"mask": window(5, 0), "sink": random(4)},
    "documents": {"mask": documents([9, 1, 30]), "score": softcap(2.0)},
    "dense": {"mask": dense(random(40, 40) > 0), "sink": random(1, 4)},
    "thirds": {"mask": causal() & where(lambda batch, head, query, key: (key + head) % 3 != 1)},
    "bias": {"score": bias(TABLE)},
    "slopes": {"score": [alibi(SLOPES), softcap(3.0)]},
    "relative": {"score": relative(random(4, 7), 3)},
    "buckets": {"score": relative(BUCKETS, 20, bidirectional=True)},
    "buckets before": {"score": relative(BUCKETS, 20, bidirectional=False)},
    "picked": {"score": picked(WEIGHTS)},
    "function": {"score": [wavy(WEIGHTS), bias(TABLE)], "sink": random(4)},
}

HELD = {  # what rules read where it lies
    "bias": [TABLE],
    "function": [WEIGHTS, TABLE],
    "buckets": [BUCKETS],
    "buckets before": [BUCKETS],
    "picked": [WEIGHTS],
}


def operands(batch=2, heads=4, key_heads=4, n=40, d=5, dv=6, dtype=np.float64):
    shapes = (batch, heads, n, d), (batch, key_heads, n, d), (1, key_heads, n, dv)
    return [random(*shape, dtype=dtype, seed=7) for shape in shapes]


def direction(x, rules):
    """A direction in which everything moves."""
    held = attend(*x, **rules).backward(np.ones((*x[0].shape[:-1], x[2].shape[-1]), x[0].dtype)).rules
    sink = None if "sink" not in rules else random(*np.shape(rules["sink"]), seed=3)
    moved = (random(*part.shape, seed=2).astype(part.dtype) for part in x)
    return Direction(*moved, sink, tuple(tuple(random(*a.shape, seed=4) for a in own) for own in held))  # type: ignore[call-arg]


def check(got, want, tolerance=1e-12):
    pairs = [(got.output, want.output), (got.lse, want.lse)]
    pairs += [(getattr(got.gradients, name), getattr(want.gradients, name)) for name in "qkv"]
    if want.gradients.sink is not None:
        pairs.append((got.gradients.sink, want.gradients.sink))
    for own, other in zip(got.gradients.rules, want.gradients.rules, strict=True):
        pairs += zip(own, other, strict=True)
    for a, b in pairs:
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1, np.abs(b).max(initial=0)))


@pytest.mark.parametrize("key_heads", [1, 2, 4])
@pytest.mark.parametrize("case", CASES)
def test_it_is_the_definition(case, key_heads):
    rules, x = CASES[case], operands(key_heads=key_heads)
    along = direction(x, rules)
    done = attend(*x, **rules)
    d_out, d_lse = random(*done.output.shape, seed=8), random(*done.lse.shape, seed=9)
    got = done.second(d_out, d_lse, along)
    check(got, second(*x, d_out, d_lse, along, **rules))
    for a, b in zip(done.jvp(along), (got.output, got.lse), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("case", CASES)
def test_the_definition_is_what_finite_differences_say(case):
    rules, x, step = CASES[case], operands(batch=1), 1e-5
    held = HELD.get(case, [])
    along = direction(x, rules)
    along = along if held else replace(along, rules=())
    d_out, d_lse = random(1, 4, 40, 6, seed=8), random(1, 4, 40, seed=9)

    def moved(by):
        at = [a + by * t for a, t in zip(x, (along.q, along.k, along.v), strict=True)]
        own = rules | ({"sink": rules["sink"] + by * along.sink} if "sink" in rules else {})
        before = [a.copy() for a in held]
        for a, (t,) in zip(held, along.rules, strict=True):
            a += by * t
        found = gradients(*at, d_out, d_lse, **own)
        results = attention(*at, **own), found.q, found.k, found.v, *(a for arrays in found.rules for a in arrays)
        for a, old in zip(held, before, strict=True):
            a[...] = old
        return results

    want = second(*x, d_out, d_lse, along, **rules)
    own = want.gradients
    got = want.output, own.q, own.k, own.v, *(a for arrays in own.rules for a in arrays)
    for a, up, down in zip(got, moved(step), moved(-step), strict=True):
        np.testing.assert_allclose(a, (up - down) / (2 * step), rtol=1e-6, atol=1e-6 * np.abs(a).max())


@pytest.mark.parametrize(("n", "m"), [(1, 1), (127, 127), (128, 256), (129, 257), (3, 300), (300, 3)])
def test_every_length(n, m):
    q, k, v = random(2, n, 3), random(2, m, 3), random(2, m, 1)
    along, rules = Direction(*(random(*x.shape, seed=1) for x in (q, k, v))), {"mask": causal(align="end")}
    d_out, d_lse = random(2, n, 1, seed=5), random(2, n, seed=6)
    check(attend(q, k, v, **rules).second(d_out, d_lse, along), second(q, k, v, d_out, d_lse, along, **rules))


def test_what_stands_still_may_be_left_out():
    x = operands()
    whole = direction(x, {})
    d_out = random(2, 4, 40, 6)
    for name in "qkv":
        alone = Direction(**{name: getattr(whole, name)})
        check(attend(*x).second(d_out, None, alone), second(*x, d_out, np.zeros((2, 4, 40)), alone))


def test_any_layout_and_empty_operands():
    q, k, v = (random(9, 2, 20, 6)[::-2, :, ::-1, ::2] for _ in range(3))
    along = Direction(*(random(*x.shape, seed=1)[..., ::-1] for x in (q, k, v)))
    d_out = random(*q.shape, seed=2)[..., ::-1]
    check(attend(q, k, v).second(d_out, None, along), second(q, k, v, d_out, np.zeros(q.shape[:-1]), along))
    for shape, keys in (((0, 5, 3), 5), ((2, 0, 3), 0), ((2, 5, 3), 0)):
        q, k = np.ones(shape), np.ones((*shape[:-2], keys, 3))
        moved = attend(q, k, k, mask=full()).second(q, None, Direction(q, k, k))
        assert moved.output.shape == q.shape
        assert moved.gradients.k.shape == k.shape
        assert not moved.gradients.q.any()


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_narrower_numbers(dtype):
    x = operands(dtype=dtype)
    along = direction(x, CASES["window"])
    d_out = random(2, 4, 40, 6, dtype=dtype)
    rules = CASES["window"] | {"sink": CASES["window"]["sink"].astype(np.float32)}
    got = attend(*x, **rules).second(d_out, None, along)
    assert got.output.dtype == got.gradients.q.dtype == np.float32
    wide = Direction(*(np.asarray(t, np.float64) for t in (along.q, along.k, along.v, along.sink)))
    want = second(*(a.astype(np.float64) for a in (*x, d_out)), np.zeros((2, 4, 40)), wide, **rules)
    check(got, want, 1e-5)


def test_hidden_pairs_are_never_touched():
    q, k, v = (random(1, 300, 4, seed=n) for n in range(3))
    along, d_out = Direction(*(random(1, 300, 4, seed=n) for n in range(3, 6))), random(1, 300, 4, seed=6)
    rules = {"mask": causal() & where(lambda batch, head, query, key: (key != 100) | (query < 0))}
    before = attend(q, k, v, **rules).second(d_out, None, along)
    for x in (k, v, along.k, along.v):
        x[:, 100] = np.nan
    after = attend(q, k, v, **rules).second(d_out, None, along)
    rest = np.arange(300) != 100
    np.testing.assert_allclose(after.output, before.output, atol=1e-13)
    for name in "qkv":
        a, b = (getattr(found.gradients, name)[:, rest] for found in (after, before))
        np.testing.assert_allclose(a, b, atol=1e-12)
    assert not after.gradients.k[:, 100].any()


def test_memory_grows_with_length_alone():
    q, k, v = (random(1, 4096, 8, dtype=np.float32) for _ in range(3))
    done = attend(q, k, v)
    done.second(q, None, Direction(q, k, v))
    tracemalloc.start()
    done.second(q, None, Direction(q, k, v))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4096 * 4096 * 4 / 16  # of a table of scores; blocks take some


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda x: attend(x, x, x).jvp(Direction(q=x[:3])), ShapeError, ["direction for q", "(3, 4)", "(6, 4)"]),
        (lambda x: attend(x, x, x).jvp(Direction(k=np.ones((6, 4), int))), DtypeError, ["direction for k", "int64"]),
        (lambda x: attend(x, x, x).jvp(Direction(sink=x[0, 0])), InputError, ["the sink", "leave it out"]),
        (lambda x: attend(x, x, x).jvp(Direction(rules=((x,),))), ShapeError, ["[1]", "[]", "backward(...).rules"]),
        (lambda x: attend(x, x, x).second(x[:3], None, Direction()), ShapeError, ["d_out", "(3, 4)"]),
        (lambda x: attend(x, x, x).second(x, x, Direction()), ShapeError, ["d_lse", "(6, 4)"]),
        (lambda x: attend(x, x, x).second(None, None, Direction()), InputError, ["d_out is missing"]),
        (lambda x: attend(x, x, x).jvp((x,)), InputError, ["a tuple", "Direction(q="]),
        (lambda x: merge(*[attend(x, x, x, mask=full())] * 2).jvp(Direction()), InputError, ["merged"]),
    ],
)
def test_what_cannot_be_is_refused_with_a_next_step(call, kind, words):
    with pytest.raises(kind) as caught:
        call(random(6, 4))
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("which", range(7))
@pytest.mark.parametrize("large", [3e38, np.inf, np.nan])
def test_numbers_without_a_bound_are_no_news(which, large):
    operands = [random(2, 9, 4, dtype=np.float32, seed=n) for n in range(7)]
    operands[which][0, 3] = large
    q, k, v, d_out, *along = operands
    done = attend(q, k, v, score=softcap(2.0), sink=random(2))
    assert done.second(d_out, None, Direction(*along)).output.shape == done.jvp(Direction(*along))[0].shape
