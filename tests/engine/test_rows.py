"""Some queries of a call alone: the bits of the whole call, whatever the mask, the rules and the cut."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import clearhead
from clearhead import causal, dense, dilated, documents, full, prefix, softcap, where, window
from clearhead.engine.execute import execute_rows
from clearhead.engine.inputs import Operands, Rules
from clearhead.rules.fused import clipped_sum
from clearhead.rules.masks import visible
from tests.kernels.combinations import in_turns

Q, KV = 70, 300
MASKS = {
    "causal": causal(align="end"),
    "start": causal(align="start"),
    "full": full() & window(None, None, align="end"),
    "window": window(40, 3, align="end"),
    "no left edge": window(None, 5, align="start"),
    "no right edge": window(9, None, align="end"),
    "dilated": dilated(3, align="end") & window(None, None, align="end"),
    "prefix": causal(align="start") | prefix(5),
    "hidden": ~window(1, 1, align="end"),
    "where": where(lambda b, h, q, k: (q + h) % 3 != k % 3) & causal(align="end"),
}
RULES = {"none": (), "softcap": (softcap(2.0),), "place": (lambda s, b, h, q, k: s + (h + 1) * (q - k) * 0.01,)}


def draw(queries, keys, dim=16, dtype="float32"):
    rng = np.random.default_rng(queries + keys)
    shapes = ((2, 4, queries, dim), (2, 2, keys, dim), (2, 2, keys, dim))
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


@pytest.mark.parametrize(("mask", "rule"), in_turns(MASKS, RULES, 1))
def test_any_cut_of_the_queries_has_the_bits_of_the_whole(mask, rule):
    q, k, v = draw(Q, KV)
    whole = clearhead.attend(q, k, v, mask=MASKS[mask], score=RULES[rule])
    for first, stop in [(0, 1), (0, 33), (33, 70), (66, 70), (69, 70), (5, 64)]:
        rules = Rules(MASKS[mask], RULES[rule])
        output, lse = execute_rows(Operands(q, k, v), rules, (first, stop), lse=True)
        np.testing.assert_array_equal(output, whole.output[..., first:stop, :])
        np.testing.assert_array_equal(lse, whole.lse[..., first:stop])


@pytest.mark.parametrize("mask", [full(), window(3, None, align="start"), window(None, 3, align="end")])
def test_far_more_queries_than_keys_see_what_they_see_in_the_whole(mask):
    q, k, v = draw(900, 5)
    whole = clearhead.attention(q, k, v, mask=mask)
    for rows in ((0, 3), (2, 90), (500, 503), (896, 900), (100, 900)):
        got = execute_rows(Operands(q, k, v), Rules(mask), rows)[0]
        np.testing.assert_array_equal(got, whole[..., slice(*rows), :])


@given(lengths=st.lists(st.integers(0, 60), min_size=1, max_size=5), cut=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_packed_documents_may_be_cut_anywhere(lengths, cut):
    n = sum(lengths) + 1
    q, k, v = draw(n, n, dim=5, dtype="float64")
    mask = documents([*lengths, 1]) & causal()
    first, stop = sorted(int(x * n) for x in cut)
    whole = clearhead.attend(q, k, v, mask=mask)
    if first < stop:
        output, lse = execute_rows(Operands(q, k, v), Rules(mask), (first, stop), lse=True)
        np.testing.assert_array_equal(output, whole.output[..., first:stop, :])
        np.testing.assert_array_equal(lse, whole.lse[..., first:stop])


def test_output_goes_where_it_is_wanted():
    q, k, v = draw(Q, KV)
    out = np.zeros((2, 4, Q, 16), np.float32)
    execute_rows(Operands(q, k, v), Rules(full()), (3, 50), out=out[..., 3:50, :])
    np.testing.assert_array_equal(out[..., 3:50, :], clearhead.attention(q, k, v, mask=full())[..., 3:50, :])
    assert not out[..., :3, :].any()
    assert not out[..., 50:, :].any()


def test_a_fault_names_the_query_by_its_position():
    q, k, v = draw(Q, Q)
    rules = Rules(causal(), (lambda s, b, h, query, key: s + query // (query - 40),))
    execute_rows(Operands(q, k, v), rules, (41, 70))
    with pytest.raises(clearhead.TraceError, match="query 40 and key 0"):
        execute_rows(Operands(q, k, v), rules, (30, 50))


def test_tables_by_row_are_refused():
    q, k, v = draw(8, 8)
    with pytest.raises(clearhead.InputError, match=r"dense\(array\(8, 8\)\).* read tables by row"):
        execute_rows(Operands(q, k, v), Rules(dense(np.ones((8, 8), bool))), (0, 4))


@given(st.integers(-50, 50), st.integers(0, 60), st.integers(0, 40))
def test_sums_of_cut_numbers_are_counted_in_one_step(first, count, most):
    assert clipped_sum(first, count, most) == sum(min(max(x, 0), most) for x in range(first, first + count))


@pytest.mark.parametrize("mask", [MASKS[name] for name in ("causal", "start", "window", "no left edge", "full")])
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (30, 70), (70, 30), (0, 4), (4, 0)])
def test_pairs_are_those_inside_the_band(mask, queries, keys):
    asked = clearhead.problem(*(np.zeros((2, n, 1)) for n in (queries, keys, keys)), mask=mask)
    seen = visible(mask, queries, keys)
    assert asked.pairs == 2 * seen.sum()
    assert [asked.rules.pairs(first) for first in (0, 1, 50, 90)] == [seen[:, first:].sum() for first in (0, 1, 50, 90)]
