"""Every mask is held against the lengths, heads and batches of a call, wherever in a formula it stands.

`visible` answers for each mask in each formula. Each mask is compiled in one formula only, and each formula with a mask
or two: a kernel puts a formula together from its parts as `visible` does, and takes half a second to compile.
"""

from typing import Any

import numpy as np
import pytest

from clearhead import (
    InputError,
    KeyValueCache,
    ShapeError,
    alibi,
    attend,
    attention,
    blocks,
    causal,
    dense,
    dilated,
    documents,
    full,
    prefix,
    where,
    window,
)  # fmt: skip
from clearhead.rules.masks import visible
from clearhead.rules.spans import Span, cut
from tests.kernels.combinations import in_turns

BATCHES, HEADS, QUERIES, KEYS = 2, 3, 4, 6
LEAD = (BATCHES, HEADS)
END = window(None, None, align="end")  # the queries are the last ones
ODD = where(lambda batch, head, query, key: (key + query + head) % 2 == 1)


def table(*shape):
    return np.random.default_rng([1, *shape]).random(shape) < 0.5


def ids(lengths):
    return np.repeat(np.arange(len(lengths)), lengths)


def in_blocks(array, size):
    return array[..., (np.arange(QUERIES)[:, None] + KEYS - QUERIES) // size, np.arange(KEYS) // size]


FITTING = {  # a mask, and the pairs that it lets see each other
    "documents": (documents([2, 4]), ids([2, 4])[2:, None] == ids([2, 4])),
    "documents, some empty": (documents([0, 5, 0, 1]), ids([5, 1])[2:, None] == ids([5, 1])),
    "dense": (dense(table(4, 6)), table(4, 6)),
    "dense of one row": (dense(table(1, 6)), table(1, 6)),
    "dense of heads": (dense(table(3, 4, 1)), table(3, 4, 1)),
    "dense of batches": (dense(table(2, 1, 4, 6)), table(2, 1, 4, 6)),
    "blocks": (blocks(table(3, 3), 2), in_blocks(table(3, 3), 2)),
    "blocks, more than needed": (blocks(table(3, 9, 8), 2), in_blocks(table(3, 9, 8), 2)),
    "blocks of anything": (blocks(table(1, 1), 2**40), table(1, 1)),
    "prefix": (prefix(2), np.arange(6) < 2),
    "a prefix beyond the end": (prefix(2**70), np.ones(6, bool)),
    "window": (
        window(1, 0, align="end"),
        (np.arange(6) <= np.arange(4)[:, None] + 2) & (np.arange(6) > np.arange(4)[:, None]),
    ),
    "a wide window": (window(2**70, None, align="end"), np.ones(6, bool)),
    "dilated": (dilated(2, align="end"), np.isin(np.arange(4)[:, None] + 2 - np.arange(6), [0, 2, 4])),
    "a wide dilation": (dilated(2**70, align="end"), np.eye(4, 6, 2, dtype=bool)),
    "causal": (causal(align="end"), np.tri(4, 6, 2, dtype=bool)),
    "full": (full(), np.ones(6, bool)),
}
WRONG = {  # masks, and what their errors name
    "documents, too few": (documents([2, 3]), r"documents\(\[2, 3\]\) holds 5 .*6"),
    "documents, too many": (documents([2, 5]), r"documents\(\[2, 5\]\) holds 7 .*6"),
    "dense, fewer queries": (dense(table(3, 6)), r"dense\(array\(3, 6\)\).*\(2, 3, 4, 6\)"),
    "dense, more queries": (dense(table(5, 6)), r"dense\(array\(5, 6\)\).*\(2, 3, 4, 6\)"),
    "dense, fewer keys": (dense(table(4, 5)), r"dense\(array\(4, 5\)\)"),
    "dense, more keys": (dense(table(4, 7)), r"dense\(array\(4, 7\)\)"),
    "dense, other heads": (dense(table(2, 4, 6)), r"dense\(array\(2, 4, 6\)\)"),
    "dense, other batches": (dense(table(3, 3, 4, 6)), r"dense\(array\(3, 3, 4, 6\)\)"),
    "blocks, fewer queries": (blocks(table(2, 3), 2), r"blocks\(array\(2, 3\), 2\).*3 × 3 blocks.*queries at 2 to 5"),
    "blocks, fewer keys": (blocks(table(3, 2), 2), r"blocks\(array\(3, 2\), 2\).*3 × 3 blocks"),
    "blocks, other heads": (blocks(table(2, 3, 3), 2), r"blocks\(array\(2, 3, 3\), 2\).*3 heads"),
}
FORMULAS = {
    "alone": (lambda a: a, lambda a, odd: a),
    "and": (lambda a: a & ODD, lambda a, odd: a & odd),
    "and, behind": (lambda a: ODD & a, lambda a, odd: a & odd),
    "or": (lambda a: a | ODD, lambda a, odd: a | odd),
    "or, behind": (lambda a: ODD | a, lambda a, odd: a | odd),
    "not": (lambda a: ~a, lambda a, odd: ~a),
    "twice not": (lambda a: ~~a, lambda a, odd: a),
    "not of an or": (lambda a: ~(a | ODD), lambda a, odd: ~(a | odd)),
    "deep": (lambda a: (ODD | ~(full() & a)) & prefix(5), lambda a, odd: (odd | ~a) & (np.arange(6) < 5)),
    "beside itself": (lambda a: a | (a & ODD), lambda a, odd: a),
}


def call(mask, lead=LEAD):
    r = np.random.default_rng(0)
    q, k, v = (r.standard_normal((*lead, n, 5)) for n in (QUERIES, KEYS, KEYS))
    return q, k, v, {"mask": mask, "scale": 1.0}


def fitting(name, formula):
    """A mask in a formula, and the pairs that it lets see each other."""
    (mask, seen), (made, meant) = FITTING[name], FORMULAS[formula]
    mask = made(mask) & END
    if formula in ("alone", "and", "and, behind") and name.startswith("documents"):
        packs: Any = FITTING[name][0]
        mask = made(documents(packs.lengths) | ~full()) & END  # at the top, its queries would be packed too
    odd = (np.arange(KEYS) + np.arange(QUERIES)[:, None] + KEYS - QUERIES + np.arange(HEADS)[:, None, None]) % 2 == 1
    return mask, np.broadcast_to(meant(np.broadcast_to(seen, (*LEAD, QUERIES, KEYS)), odd), (*LEAD, QUERIES, KEYS))


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("name", FITTING)
def test_what_fits_is_seen_wherever_it_stands(name, formula):
    mask, wanted = fitting(name, formula)
    np.testing.assert_array_equal(np.broadcast_to(visible(mask, QUERIES, KEYS, lead=LEAD), wanted.shape), wanted)


@pytest.mark.parametrize(("name", "formula"), in_turns(FITTING, FORMULAS, 1))
def test_what_fits_is_attended_to_wherever_it_stands(name, formula):
    mask, wanted = fitting(name, formula)
    q, k, v, rules = call(mask)
    scores = np.where(wanted, q @ k.swapaxes(-1, -2), -np.inf)
    weights = np.exp(scores - np.maximum(scores.max(-1, keepdims=True), -1e9))
    weights /= np.maximum(weights.sum(-1, keepdims=True), 1e-300)
    np.testing.assert_allclose(attention(q, k, v, **rules), weights @ v, atol=1e-12)


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused_wherever_it_stands(name, formula):
    (mask, message), (made, _) = WRONG[name], FORMULAS[formula]
    q, k, v, rules = call(made(mask) & END)
    asks = [
        lambda: visible(rules["mask"], QUERIES, KEYS, lead=LEAD),
        lambda: attention(q, k, v, **rules),
        lambda: attend(q, k, v, **rules),
    ]
    if not name.startswith("documents") or formula not in ("alone", "and", "and, behind"):
        asks.append(lambda: attention(q, cache_of(k, v), **rules))
    for ask in asks:
        with pytest.raises(ShapeError, match=message):
            ask()


def cache_of(k, v):
    cache = KeyValueCache()
    cache.append(k, v)
    return cache


@pytest.mark.parametrize("made", [lambda a: a | prefix(1), lambda a: ~a, lambda a: full() & (ODD | a)])
@pytest.mark.parametrize(("queries", "keys"), [(4, 6), (0, 6), (0, 0)])
def test_documents_with_query_lengths_of_their_own_are_refused_in_formulas(made, queries, keys):
    packed = documents([keys, 0], queries=[queries, 0])
    for mask in (made(packed), packed & made(packed), packed & made(documents([keys], queries=[queries]))):
        with pytest.raises(InputError, match=r"queries=.* combined by &, but not by \| or ~"):
            visible(mask & END, queries, keys)
        with pytest.raises(InputError, match=r"queries=.* combined by &, but not by \| or ~"):
            attention(np.zeros((queries, 2)), np.zeros((keys, 2)), np.zeros((keys, 2)), mask=mask & END)


def test_documents_in_a_formula_need_to_know_where_fewer_queries_stand():
    with pytest.raises(ShapeError, match=r"4 queries stand among 6 keys.*align='end'.*align='start'"):
        visible(~documents([2, 4]), 4, 6)
    for align, first in (("start", 0), ("end", 2)):
        own = ids([2, 4])
        seen = visible(~documents([2, 4]) & window(None, None, align=align), 4, 6)
        np.testing.assert_array_equal(seen, own[first : first + 4, None] != own)


def test_rows_of_blocks_are_counted_from_where_queries_stand():
    with pytest.raises(ShapeError, match="4 × 4 blocks of 2, for queries at 4 to 7"):
        visible(blocks(table(2, 4), 2) & causal(align="end"), 4, 8)
    np.testing.assert_array_equal(
        visible(blocks(table(4, 4), 2) & window(None, None, align="end"), 4, 8),
        table(4, 4).repeat(2, 0).repeat(2, 1)[4:],
    )


def test_a_piece_of_spans_keeps_positions_and_rows():
    spans = (Span(0, 10, 0, 12, 2), Span(10, 5, 12, 5, 2, 1))
    assert cut(spans, 4, 12) == (Span(0, 6, 0, 12, 6, 4), Span(6, 2, 12, 5, 6, 5))
    assert cut(cut(spans, 4, 15), 2, 3) == cut(spans, 6, 7) == (Span(0, 1, 0, 12, 8, 6),)
    assert cut(spans, 10, 12) == (Span(0, 2, 12, 5, 12, 11),)
    assert cut(spans, 15, 20) == cut(spans, 3, 3) == ()


READERS = {
    "where": ODD,
    "where and a table": ODD & dense(table(4, 6)),
    "not where": ~ODD,
    "where or a prefix": ODD | prefix(2),
    "blocks": blocks(table(3, 3), 2),
    "where in documents": ODD & documents([2, 4], queries=[2, 2]),
}


@pytest.mark.parametrize("name", READERS)
def test_a_mask_that_reads_positions_says_where_fewer_queries_stand(name):
    mask = READERS[name]
    with pytest.raises(ShapeError, match=r"where 4 queries stand among 6 keys.*align='end'.*align='start'"):
        visible(mask, QUERIES, KEYS, lead=LEAD)
    q, k = np.ones((*LEAD, QUERIES, 2)), np.ones((*LEAD, KEYS, 2))
    with pytest.raises(ShapeError, match="does not say where 4 queries stand among 6 keys"):
        attention(q, k, k, mask=mask)
    assert attention(q, k, k, mask=mask & END).shape == q.shape


def test_a_score_that_reads_positions_needs_to_know_where_fewer_queries_stand():
    q, k = np.ones((3, QUERIES, 2)), np.ones((3, KEYS, 2))
    for mask in (full(), prefix(3), dense(table(4, 6))):
        with pytest.raises(ShapeError, match=r"4 queries stand among 6 keys, and alibi\(.* reads their positions"):
            attention(q, k, k, mask=mask, score=alibi(3))
        assert attention(q, k, k, mask=mask & END, score=alibi(3)).shape == q.shape
    keys_alone = where(lambda batch, head, query, key: key % 2 == 0)
    assert attention(q, k, k, mask=keys_alone, score=lambda s, b, h, i, j: s + j).shape == q.shape


def test_queries_over_a_cache_are_the_last_ones_for_every_rule():
    x = np.random.default_rng(0).standard_normal((3, KEYS, 16)).astype(np.float32)
    cache = KeyValueCache()
    cache.append(x, x)
    last = x[:, -2:]
    for mask, score in ((ODD, ()), (ODD | prefix(1), alibi(3)), (full(), lambda s, b, h, i, j: s * i)):
        found = attention(last, cache, mask=mask, score=score)
        assert np.array_equal(found, attention(last, x, x, mask=mask & END, score=score))
        assert np.array_equal(found, attention(x, x, x, mask=mask, score=score)[:, -2:])
