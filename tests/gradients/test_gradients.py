"""`attend(...).backward(d_out)`: what it takes, keeps, refuses and allocates."""

import tracemalloc

import ml_dtypes
import numpy as np
import pytest

from clearhead import (
    Direction,
    DtypeError,
    InputError,
    KeyValueCache,
    ShapeError,
    alibi,
    attend,
    bias,
    causal,
    full,
    merge,
    window,
)  # fmt: skip
from clearhead.definition.gradient import gradients as definition
from clearhead.definition.tangent import second
from tests.arrays import random


def test_a_step_along_the_gradients_changes_the_loss_by_their_length():
    q, k, v, d_out = (random(2, 30, 8, dtype=np.float64, seed=n) for n in range(4))
    table, sink = random(30, 30, dtype=np.float64), random(2, dtype=np.float64)

    def loss():
        return (attend(q, k, v, score=bias(table), sink=sink).output * d_out).sum()

    got = attend(q, k, v, score=bias(table), sink=sink).backward(d_out)
    for x, grad in ((q, got.q), (k, got.k), (v, got.v), (table, got.rules[0][0]), (sink, got.sink)):
        before, step = x.copy(), 1e-6
        x += step * grad
        up = loss()
        x[...] = before - step * grad
        np.testing.assert_allclose((up - loss()) / (2 * step), (grad**2).sum(), rtol=1e-6)
        x[...] = before


def test_rules_gradients_can_be_left_out():
    x, d_out = random(2, 30, 8), random(2, 30, 8)
    done = attend(x, x, x, score=alibi(2))
    assert done.backward(d_out, rules=False).rules == ()
    assert done.backward(d_out).rules[0][0].shape == (2,)
    np.testing.assert_array_equal(done.backward(d_out, rules=False).q, done.backward(d_out).q)


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda x: attend(x, x, x).backward(x[:3]), ShapeError, ["(3, 4)", "(6, 4)"]),
        (lambda x: attend(x, x, x).backward(x.astype(np.float64)), DtypeError, ["float64", "float32"]),
        (lambda x: attend(x, x, x).backward(x, x), ShapeError, ["d_lse", "(6, 4)", "(6,)"]),
        (lambda x: attend(x, x, x).backward(x, np.ones(6, int)), DtypeError, ["d_lse", "int64"]),
        (lambda x: attend(x, x, x).backward(None), InputError, ["d_out is missing", "gradient of the output"]),
        (lambda x: merge(*[attend(x, x, x, mask=full())] * 2).backward(x), InputError, ["merged", "attend(q, k, v)"]),
        (lambda x: attend(x[None], cached(x)).backward(x[None]), InputError, ["cache", "attend(q, k, v)"]),
    ],
)
def test_what_cannot_be_is_refused_with_a_next_step(call, kind, words):
    with pytest.raises(kind) as caught:
        call(random(6, 4))
    assert all(word in str(caught.value) for word in words), caught.value


def cached(x):
    cache = KeyValueCache()
    cache.append(x[None], x[None])
    return cache


def test_memory_is_that_of_the_gradients():
    q, k, v, d_out = (random(1, 8192, 64, seed=n) for n in range(4))
    done = attend(q, k, v, threads=1)
    done.backward(d_out)
    tracemalloc.start()
    done.backward(d_out)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    inputs = 5 * q.nbytes  # q, k, v, the output and its gradient
    assert most <= 3 * q.nbytes + 0.01 * (inputs + 3 * q.nbytes)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_a_sink_may_have_the_operands_dtype(dtype):
    x, d_out = (random(2, 40, 8, seed=n).astype(dtype) for n in range(2))
    sink = np.array([0.5, -1], dtype)
    done, wanted = (attend(x, x, x, sink=own) for own in (sink, sink.astype(np.float64)))
    assert done.output.tobytes() == wanted.output.tobytes()
    assert np.array_equal(done.lse, wanted.lse)
    got = done.backward(d_out).sink
    assert got.dtype == dtype
    assert np.array_equal(got, wanted.backward(d_out).sink.astype(dtype))


def test_memory_with_a_sink_is_that_without():
    q, k, v, d_out = (random(4, 2048, 64, seed=n) for n in range(4))
    most = []
    for sink in (None, random(4)):
        done = attend(q, k, v, sink=sink, threads=1)
        done.backward(d_out)
        tracemalloc.start()
        done.backward(d_out)
        most.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert most[1] <= 1.1 * most[0]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("lowest", [-np.inf, 0.5])
def test_a_query_that_sees_nothing_moves_the_sink_by_its_log_sum_exp_alone(lowest):
    q, k, v, d_out = (random(2, n, 4, seed=n) for n in (6, 4, 4, 6))
    d_lse, rules = random(2, 6), {"mask": causal(align="end"), "sink": np.array([lowest, 0.3], np.float32)}
    along = Direction(np.ones_like(q), np.ones_like(k), np.ones_like(v), np.ones(2))
    want, wanted = definition(q, k, v, d_out, d_lse, **rules), second(q, k, v, d_out, d_lse, along, **rules)
    d_out[:, :2] = np.nan  # queries before all keys
    done = attend(q, k, v, **rules)
    got, moved = done.backward(d_out, d_lse), done.second(d_out, d_lse, along)
    for name in ("q", "k", "v", "sink"):
        np.testing.assert_allclose(getattr(got, name), getattr(want, name), atol=1e-5)
        np.testing.assert_allclose(getattr(moved.gradients, name), getattr(wanted.gradients, name), atol=1e-5)
    np.testing.assert_allclose(moved.output, wanted.output, atol=1e-5)
    np.testing.assert_allclose(moved.lse, wanted.lse, atol=1e-5)


@pytest.mark.parametrize("shape", [(0, 5, 3), (2, 0, 3)])
def test_empty_operands_have_empty_gradients(shape):
    x = np.ones(shape)
    got = attend(x, x, x, mask=full()).backward(x)
    assert got.q.shape == got.k.shape == got.v.shape == shape


@pytest.mark.parametrize(("queries", "keys"), [(0, 0), (0, 3), (3, 0)])
def test_rules_without_pairs_have_gradients_of_zero(queries, keys):
    q, k, table = np.ones((2, queries, 4)), np.ones((2, keys, 4)), np.ones((queries, keys))
    slopes, mask = np.ones(2), window(None, None, align="end")
    done = attend(q, k, k, mask=mask, score=[bias(table), lambda s, b, h, i, j: s - slopes[h] * (i - j)])
    got = done.backward(np.ones((2, queries, 4)), rules=True).rules
    assert [[x.tolist() for x in each] for each in got] == [[table.tolist()], [[0.0, 0.0]]]


@pytest.mark.filterwarnings("error")
def test_gradients_that_float16_cannot_hold_are_infinite():
    x = np.full((4, 4), 60000, np.float16)
    d_v = attend(x, x, x, mask=full(), scale=0.0).backward(np.full((4, 4), 60000, np.float16))
    assert np.isfinite(d_v.v).all()
    shared = attend(np.zeros((8, 4, 4), np.float16), x, x, mask=full()).backward(np.full((8, 4, 4), 60000, np.float16))
    assert np.isinf(shared.v).all()
