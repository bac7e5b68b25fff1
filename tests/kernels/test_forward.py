"""The forward kernel: equal to the canonical program, bit for bit, whatever the problem and the machine."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import clearhead
from clearhead import attend, attention, causal, full
from clearhead.definition import canonical
from clearhead.machine.target import native_isas
from clearhead.testing import check_definition, check_hidden, check_same_bits, using_isa
from tests.arrays import random
from tests.strategies import BORDERS, DTYPES, Case, cases

ISAS = native_isas()


def check_canonical(q, k, v, mask, scale=None):
    """Output and log-sum-exp on every instruction set against the scalar program."""
    output, lse = canonical.attention(q, k, v, mask=mask, scale=scale)
    for isa in ISAS:
        with using_isa(isa):
            got = attend(q, k, v, mask=mask, scale=scale, threads=1)
        check_same_bits(got.output, output, f"outputs on {isa}")
        check_same_bits(got.lse, lse, f"log-sum-exps on {isa}")


@given(cases())
def test_any_problem_gives_the_canonical_bits(case: Case):
    check_canonical(*case.arrays(), case.mask, case.scale)


@given(cases(kinds=st.sampled_from(["normal", "large", "tiny", "equal", "zeros", "orthogonal", "subnormal"])))
def test_any_problem_is_what_the_textbook_says(case: Case):
    check_definition(attention, *case.arrays(), mask=case.mask, scale=case.scale)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("length", BORDERS)
def test_every_tail_of_a_tile_and_a_block(dtype, length):
    x = random(length, 9, dtype=dtype)
    check_canonical(x, x, x, causal())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("keys", [2047, 2048, 2049, 2176, 4095, 4096, 4097, 6500])
def test_every_tail_of_a_segment(dtype, keys):
    q, k, v = random(70, 5, dtype=dtype), random(keys, 5, dtype=dtype), random(keys, 3, dtype=dtype)
    check_canonical(q, k, v, causal(align="end"))
    check_canonical(q[:3], k, v, full())


@pytest.mark.parametrize("dim", [1, 2, 15, 16, 17, 64, 100, 128, 160, 256, 300, 511, 512])
def test_dims_from_1_to_512(dim):
    q, k, v = (random(2, 40, dim, seed=seed) for seed in range(3))
    check_canonical(q, k, v, causal())
    check_canonical(q[..., :7], k[..., :7], v, causal())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_chunked_queries_give_the_bits_of_the_whole_prompt(dtype):
    q, k, v = (random(2, 300, 24, dtype=dtype, seed=seed) for seed in range(3))
    whole = attend(q, k, v)
    for size in (1, 7, 64, 100, 299):
        for start in range(0, 300, size):
            stop = min(start + size, 300)
            part = attend(q[:, start:stop], k[:, :stop], v[:, :stop], mask=causal(align="end"))
            check_same_bits(part.output, whole.output[:, start:stop], f"chunk {start}:{stop}")
            check_same_bits(part.lse, whole.lse[:, start:stop], f"chunk {start}:{stop}")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_batch_heads_and_threads_change_no_bit(dtype):
    q, k, v = (random(5, 3, 200, 32, dtype=dtype, seed=seed) for seed in range(3))
    whole = attend(q, k, v, threads=1)
    for threads in (2, 3, 7):
        for _ in range(5):
            again = attend(q, k, v, threads=threads)
            check_same_bits(again.output, whole.output, f"{threads} threads")
            check_same_bits(again.lse, whole.lse, f"{threads} threads")
    for b, h in np.ndindex(5, 3):
        check_same_bits(attention(q[b, h], k[b, h], v[b, h]), whole.output[b, h], "one head alone")


@pytest.mark.parametrize("isa", ISAS)
@given(case=cases(lengths=st.integers(1, 40)))
def test_hidden_items_are_never_touched(isa, case: Case):
    with using_isa(isa):
        q, k, v = case.arrays()
        check_hidden(attention, q[:, :20], k[:, :20], v[:, :20], mask=case.mask if case.mask != causal() else causal())


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("length", [60, 64, 130])
def test_poison_behind_every_border(isa, length):
    x = random(length, 16)
    with using_isa(isa):
        check_hidden(attention, x, x, x)


@given(DTYPES, st.integers(0, 150), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_what_is_seen_and_not_a_number_reaches_its_row_alone(dtype, row, poison):
    q, k, v = (random(150, 8, dtype=dtype, seed=seed) for seed in range(3))
    row = min(row, 149)
    q[row] = np.nan
    y = attention(q, k, v)
    assert np.isnan(y[row]).all()
    assert np.isfinite(np.delete(y, row, axis=0)).all()
    v[row] = poison
    y = attention(np.nan_to_num(q), k, v)
    assert np.isfinite(y[:row]).all()
    assert not np.isfinite(y[row:]).any()


def test_odd_payloads_of_nan_stay_nan():
    for dtype, kind, payload in (
        (np.float32, np.uint32, 0x7FC00001),
        (np.float64, np.uint64, 0x7FF00000000007A2),
    ):
        q, k, v = np.ones((3, 2), dtype), np.ones((3, 2), dtype), np.ones((3, 2), dtype)
        k[0] = np.array(payload, kind).view(dtype)
        assert np.isnan(attention(q, k, v)).all()


def test_a_score_of_minus_infinity_weighs_nothing_wherever_it_stands():
    for position in (0, 100, 200, 2100, 4199):
        k = np.zeros((4200, 1))
        k[position] = -np.inf
        v = np.zeros((4200, 1))
        v[position] = 4200
        assert attention(np.ones((1, 1)), k, v, mask=full()) == 0


def test_memory_is_a_few_tiles():
    import tracemalloc

    x = random(1, 16384, 64)
    attention(x[:, :64], x[:, :64], x[:, :64])
    out = np.empty_like(x)
    tracemalloc.start()
    attention(x, x, x, out=out, threads=1)
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert used < 2 << 20
    from clearhead.machine.threads import spare

    assert spare.memory.size < 2 << 20


def test_the_largest_dims_fit_in_two_megabytes_a_thread():
    from clearhead.engine.launch import prepare

    for dtype in (np.float32, np.float64):
        x = np.empty((1000, 512), dtype)
        asked = clearhead.problem(x, x, x, mask=causal())
        assert prepare(asked, ()).scratch_size <= 2 << 20
