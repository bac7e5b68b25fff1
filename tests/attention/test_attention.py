"""The calls as users make them: shapes, dtypes, layouts, empties, log-sum-exp, merge."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import clearhead
from clearhead import DtypeError, attend, attention, causal, full, kernel_for, merge, self_attention
from clearhead.definition import canonical, textbook
from clearhead.engine.problem import Problem
from clearhead.testing import check_definition, check_same_bits
from tests.arrays import random
from tests.strategies import LAYOUTS, laid_out


@pytest.mark.parametrize(
    ("x", "told"), [([[1, 0], [0, 1]], "write 1.0 in place of 1"), (np.eye(2, dtype=int), "x has dtype")]
)
def test_whole_numbers_are_refused_in_words_that_fit_what_was_given(x, told):
    with pytest.raises(DtypeError, match=told):
        self_attention(x)


def test_self_attention_is_the_first_approach():
    x = random(3, 50, 8, dtype=np.float64)
    assert self_attention(x) == pytest.approx(textbook.self_attention(x), abs=1e-13)
    assert np.array_equal(self_attention(x)[:, 0], x[:, 0])  # the first item sees itself alone


def test_lists_are_arrays_of_float64():
    y = self_attention([[0.0, 1.0], [1.0, 0.0]])
    assert y.dtype == np.float64
    assert y[1] == pytest.approx([np.e / (1 + np.e), 1 / (1 + np.e)])


@pytest.mark.parametrize(
    ("q", "k", "v"),
    [
        ((5, 4), (5, 4), (5, 4)),
        ((2, 5, 4), (5, 4), (5, 3)),
        ((5, 4), (2, 5, 4), (2, 5, 4)),
        ((3, 1, 5, 4), (2, 5, 4), (1, 5, 4)),
        ((2, 3, 1, 4, 5, 4), (3, 2, 1, 5, 4), (1, 2, 4, 5, 6)),
        ((6, 5, 4), (2, 5, 4), (2, 5, 4)),
        ((6, 5, 4), (1, 5, 4), (1, 5, 4)),
        ((6, 5, 4), (2, 5, 4), (1, 5, 4)),
        ((6, 5, 4), (1, 5, 4), (3, 5, 4)),
        ((2, 8, 5, 4), (4, 5, 4), (2, 4, 5, 7)),
        ((2, 8, 5, 4), (1, 4, 5, 4), (2, 1, 5, 7)),
    ],
)
def test_leading_axes_broadcast_and_heads_are_shared(q, k, v):
    q, k, v = random(*q), random(*k, seed=1), random(*v, seed=2)
    check_definition(attention, q, k, v)
    output, lse = canonical.attention(q, k, v)
    got = attend(q, k, v)
    check_same_bits(got.output, output)
    check_same_bits(got.lse, lse)


@given(
    LAYOUTS.filter(lambda layout: layout not in ("same_row", "read_only")),
    st.integers(1, 70),
    st.integers(1, 40),
)
def test_out_may_have_any_layout(layout, length, dim):
    x = random(2, length, dim)
    out = laid_out(np.full_like(x, np.nan), layout)
    assert self_attention(x, out=out) is out
    check_same_bits(out, self_attention(x))


def test_nothing_around_out_is_written():
    canvas = np.full((70, 60), 7.0)
    self_attention(random(37, 21, dtype=np.float64), out=canvas[10:47, 5:26])
    untouched = np.ones_like(canvas, bool)
    untouched[10:47, 5:26] = False
    assert (canvas[untouched] == 7).all()


def test_inputs_are_left_alone():
    q, k, v = (random(4, 90, 20, seed=seed) for seed in range(3))
    copies = [x.copy() for x in (q, k, v)]
    attention(q, k, v)
    for x, copy in zip((q, k, v), copies, strict=True):
        assert np.array_equal(x, copy)


@pytest.mark.parametrize("shape", [(0, 4), (0, 3, 4), (2, 0, 4), (3, 0, 5, 4)])
def test_empty_inputs_give_empty_outputs(shape):
    x = np.empty(shape, np.float32)
    done = attend(x, x, x)
    assert done.output.shape == shape
    assert done.lse.shape == shape[:-1]


def test_no_keys_give_zeros_and_minus_infinity():
    done = attend(random(3, 5, 4), np.empty((3, 0, 4), np.float32), np.empty((3, 0, 2), np.float32), mask=full())
    assert done.output.tolist() == np.zeros((3, 5, 2)).tolist()
    assert (done.lse == -np.inf).all()


def test_queries_before_the_first_key_see_nothing():
    done = attend(random(200, 4), random(70, 4, seed=1), random(70, 3, seed=2), mask=causal(align="end"))
    assert (done.output[:130] == 0).all()
    assert not np.signbit(done.output[:130]).any()
    assert (done.lse[:130] == -np.inf).all()
    assert np.isfinite(done.lse[130:]).all()


def test_log_sum_exp_is_the_natural_logarithm_of_the_sum():
    q, k, v = (random(60, 8, dtype=np.float64, seed=seed) for seed in range(3))
    s = textbook.scores(q, k, 8**-0.5)
    assert attend(q, k, v).lse == pytest.approx(textbook.log_sum_exp(s, np.tri(60, dtype=bool)), abs=1e-14)
    assert attend(np.zeros((4, 2)), np.zeros((4, 2)), np.zeros((4, 2))).lse == pytest.approx(np.log([1, 2, 3, 4]))


@given(st.integers(0, 40), st.integers(0, 40), st.sampled_from([np.float32, np.float64]))
def test_merging_two_parts_is_attending_to_both(first, second, dtype):
    q, k, v = (
        random(7, 4, dtype=dtype),
        random(first + second, 4, dtype=dtype, seed=1),
        random(first + second, 3, dtype=dtype, seed=2),
    )
    whole = attend(q, k, v, mask=full())
    joined = merge(*(attend(q, k[part], v[part], mask=full()) for part in (slice(first), slice(first, None))))
    assert joined.output.dtype == dtype
    close = 30 * float(np.finfo(dtype).eps)
    assert joined.output == pytest.approx(whole.output, abs=close)
    assert joined.lse == pytest.approx(whole.lse, abs=close)


def test_merging_with_nothing_changes_nothing():
    q, k, v = (random(7, 4, seed=seed) for seed in range(3))
    part = attend(q, k, v)
    nothing = attend(q, k[:0], v[:0], mask=full())
    for joined in (merge(part, nothing), merge(nothing, part)):
        check_same_bits(joined.output, part.output)
        check_same_bits(joined.lse, part.lse)
    assert (merge(nothing, nothing).output == 0).all()


def test_merging_what_does_not_belong_together_is_refused():
    with pytest.raises(clearhead.ShapeError, match=r"\(2, 3\)"):
        merge(attend(*[random(2, 3)] * 3), attend(*[random(4, 3)] * 3))


def test_a_kernel_can_be_read():
    x = random(40, 8)
    kernel = kernel_for(clearhead.problem(x, x, x, mask=causal()))
    assert 'define internal void @"score_1"' in kernel.ir
    assert "forward" in kernel.asm
    assert kernel.spec.tile.queries % kernel.spec.tile.lanes == 0
    assert "reassoc" not in kernel.ir
    assert " fast " not in kernel.ir
    assert " contract " not in kernel.ir


def test_one_kernel_serves_every_length_and_dim():
    from clearhead.machine import compile as machine

    self_attention(random(5, 3))
    before = machine.compilations
    for length, dim in ((1, 1), (100, 64), (300, 17)):
        self_attention(random(length, dim))
    assert machine.compilations == before


def test_debug_tells_what_is_chosen(monkeypatch, capsys):
    monkeypatch.setenv("CLEARHEAD_DEBUG", "3")
    self_attention(random(11, 3))
    told = capsys.readouterr().err
    assert "forward f32" in told
    assert "Tile(" in told


def test_what_nobody_is_told_is_not_written(monkeypatch):
    monkeypatch.delenv("CLEARHEAD_DEBUG", raising=False)
    monkeypatch.setattr(Problem, "__repr__", lambda asked: pytest.fail("a problem was written out"))
    self_attention(random(11, 4, 3))
