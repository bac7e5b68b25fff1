"""Masks with at=…: a piece of the queries sees, reads and gets what it does in the whole call."""

import numpy as np
import pytest

from clearhead import (
    InputError,
    KeyValueCache,
    ShapeError,
    alibi,
    attend,
    bias,
    blocks,
    causal,
    dense,
    dilated,
    documents,
    full,
    prefix,
    softcap,
    where,
    window,
)
from clearhead.definition import canonical, textbook
from clearhead.rules.masks import visible
from tests.arrays import random

LENGTH = 300
Q, K, V = (random(2, LENGTH, 8, seed=n) for n in range(3))
TABLE, BIAS = random(LENGTH, LENGTH) > -1, random(2, LENGTH, LENGTH)
CASES = {
    "causal": (causal, ()),
    "full": (full, alibi(2)),
    "window": (lambda **at: window(40, 5, **at), ()),
    "dilated, one row for all": (lambda **at: dilated(3, **at), bias(BIAS[:, :1])),
    "prefix": (lambda **at: causal(**at) | prefix(90), ()),
    "not": (lambda **at: full(**at) & ~window(3, 3, **at), ()),
    "dense, bias": (lambda **at: causal(**at) & dense(TABLE), bias(BIAS)),
    "blocks": (lambda **at: full(**at) & blocks(TABLE[:10, :10], 32), ()),
    "where": (lambda **at: full(**at) & where(lambda b, h, i, j: (i * 7 + j) % 3 != h), ()),
    "documents": (lambda **at: causal(**at) & documents([100, 0, 57, 143]), alibi(2)),
    "documents or": (lambda **at: causal(**at) & (documents([100, 57, 143]) | prefix(9)), ()),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("first", "stop"), [(0, 3), (64, 70), (90, 230), (299, 300)])
def test_a_piece_of_the_queries_has_the_wholes_numbers(name, first, stop):
    mask, score = CASES[name]
    whole = attend(Q, K, V, mask=mask(), score=score)
    own = {"mask": mask(at=first), "score": score}
    piece = attend(Q[:, first:stop], K, V, **own)
    assert np.array_equal(piece.output, whole.output[:, first:stop])
    assert np.array_equal(piece.lse, whole.lse[:, first:stop])
    assert np.array_equal(piece.weights[:, :], whole.weights[:, first:stop])
    defined = canonical.attention(Q[:, first:stop], K, V, **own)
    assert np.array_equal(piece.output, defined[0])
    assert np.array_equal(piece.lse, defined[1])
    exact = textbook.attention(*(x.astype(np.float64) for x in (Q[:, first:stop], K, V)), **own)
    assert np.allclose(piece.output, exact, atol=1e-5)
    d_out = np.zeros_like(whole.output)
    d_out[:, first:stop] = 1
    gradients, wanted = piece.backward(d_out[:, first:stop]), whole.backward(d_out)
    assert np.array_equal(gradients.q, wanted.q[:, first:stop])
    for x, y in zip((gradients.k, gradients.v), (wanted.k, wanted.v), strict=True):
        assert np.allclose(x, y, atol=1e-5)


def test_keys_may_end_before_the_queries():
    assert np.array_equal(visible(causal(at=3), 2, 2), np.ones((2, 2), bool))
    assert np.array_equal(visible(window(2, at=3), 2, 2).astype(int), [[0, 1], [0, 0]])


@pytest.mark.parametrize("count", [2, 30])  # for the kernel of few queries and the other one
@pytest.mark.parametrize("at", [10**9, (1 << 40) - 1])
def test_however_far_the_queries_stand_they_see_all_keys_before(at, count):
    q, d_out = Q[:, :count], random(2, count, 8, seed=5)
    far, near = (attend(q, K, V, mask=mask) for mask in (causal(at=at), full()))
    assert np.array_equal(far.output, near.output)
    own, wanted = far.backward(d_out), near.backward(d_out)
    assert all(np.array_equal(getattr(own, name), getattr(wanted, name)) for name in "qkv")


def test_rules_read_positions_that_32_bits_hold():
    last = 2**31 - 1  # i % 7 of it is right, of one more would not be
    for make in (lambda p: dilated(7, at=p), lambda p: ~window(3, at=p) & full(at=p)):
        piece = attend(Q[:, :9], K[:, :50], V[:, :50], mask=make(last - 8))
        exact = textbook.attention(
            *(x.astype(np.float64) for x in (Q[:, :9], K[:, :50], V[:, :50])), mask=make(last - 8)
        )
        assert np.allclose(piece.output, exact, atol=1e-5)
        with pytest.raises(InputError, match=r"below 2147483648, but this call has 2147483648: count positions from"):
            attend(Q[:, :9], K[:, :50], V[:, :50], mask=make(last - 7))
    far = attend(Q[:, :9], K[:, :50], V[:, :50], mask=full(at=2**33), score=softcap(3.0))  # reads no position
    assert np.array_equal(far.output, attend(Q[:, :9], K[:, :50], V[:, :50], mask=full(), score=softcap(3.0)).output)


def test_a_cache_reads_positions_too():
    cache = KeyValueCache()
    cache.append(K, V)
    for first, stop in ((70, 72), (70, 130)):
        piece = attend(Q[:, first:stop], cache, mask=causal(at=first) & dense(TABLE))
        assert np.array_equal(piece.output, attend(Q, K, V, mask=causal() & dense(TABLE)).output[:, first:stop])


def test_what_at_cannot_mean_is_an_error():
    for wrong in (-1, 1.0, True, "end", 1 << 40, 1 << 63):
        with pytest.raises(InputError, match=r"at=.* is not the position of a query"):
            causal(at=wrong)
    for make in (causal, lambda **at: window(3, **at), lambda **at: dilated(3, **at)):
        with pytest.raises(InputError, match="align='end' and at=3 both say"):
            make(align="end", at=3)
    with pytest.raises(InputError, match="has queries at 3 and at 4"):
        attend(Q, K, V, mask=causal(at=3) | window(2, at=4))
    with pytest.raises(InputError, match="says align='start' and at=4"):
        attend(Q, K, V, mask=causal(align="start") & full(at=4))
    with pytest.raises(ShapeError, match=r"\(1, 2, 310, 300\).*of the whole call"):
        attend(Q[:, :10], K, V, mask=causal(at=300) & dense(TABLE))
    with pytest.raises(ShapeError, match="holds 300 items, but 10 queries from 295 on"):
        attend(Q[:, :10], K, V, mask=causal(at=295) & documents([100, 200]))
    with pytest.raises(InputError, match="among which at=3 has no place"):
        attend(Q[:, :10], K, V, mask=causal(at=3) & documents([300], queries=[10]))


def test_masks_say_how_they_were_made():
    masks = (causal(at=3), full(at=0), window(2, None, at=5), dilated(2, at=7), causal(), full())
    assert [repr(mask) for mask in masks] == [
        "causal(at=3)", "full(at=0)", "window(2, None, at=5)", "dilated(2, at=7)", "causal()", "full()",
    ]  # fmt: skip
