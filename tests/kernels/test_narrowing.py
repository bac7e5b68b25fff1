"""Rounding results to 16 bits: numpy's bits for every kind of number, at any size, strides and threads."""

from itertools import product

import ml_dtypes
import numpy as np
import pytest

from clearhead.engine import narrowing
from clearhead.engine.narrowing import NUMBERS, WORTH_A_KERNEL, WORTH_A_THREAD, rounded, write_rounded
from clearhead.machine import loading
from clearhead.machine.target import native_isas
from clearhead.testing import using_isa
from tests.arrays import random

DTYPES = [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]


def by_numpy(numbers, dtype):
    with np.errstate(all="ignore"):
        return numbers.astype(dtype)


def check_bits(got, numbers, dtype):
    """Equal bits; what is not a number may have any."""
    want = by_numpy(numbers, dtype)
    lost = np.isnan(numbers)
    assert np.isnan(got[lost].astype(np.float32)).all()
    np.testing.assert_array_equal(got[~lost].view(np.uint16), want[~lost].view(np.uint16))


@pytest.mark.parametrize(("isa", "dtype"), list(product(native_isas(), DTYPES)))
def test_ties_and_their_neighbours_round_as_numpy_rounds_them(isa, dtype):
    """Every float32 whose last 12 bits are 0 is there: all ties of both dtypes, subnormals, infinities, no numbers."""
    bits = np.arange(1 << 20, dtype=np.uint32) << 12
    numbers = np.concatenate([bits - 1, bits, bits + 1]).view(np.float32)
    narrow = np.empty(numbers.shape, dtype)
    with using_isa(isa):
        write_rounded(numbers, narrow, 1)
    check_bits(narrow, numbers, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_count_of_numbers_is_written_and_nothing_beside_them(dtype):
    for count in (1, 15, 16, 17, 63, 65, NUMBERS - 1, NUMBERS, NUMBERS + 1, 3 * NUMBERS + 21):
        numbers, narrow = random(count + 1)[1:], np.full(count + 65, 7, dtype)  # neither aligned to a vector
        write_rounded(numbers, narrow[1 : count + 1], 1)
        check_bits(narrow[1 : count + 1], numbers, dtype)
        assert (np.delete(narrow, slice(1, count + 1)) == 7).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threads", [1, 3])
def test_padded_turned_and_repeated_rows_give_dense_results(dtype, threads):
    numbers = random(3, 2 * WORTH_A_THREAD // 64, 80)
    for view in (
        numbers[..., :72],
        numbers[:, ::-2],
        numbers.swapaxes(0, 1),
        np.broadcast_to(numbers[:1], (2, *numbers.shape)),
    ):
        got = rounded(view, dtype, threads)
        assert got.flags.c_contiguous
        check_bits(got, view, dtype)


def test_few_numbers_and_other_dtypes_are_rounded_too():
    for size, wide, dtype in (
        (WORTH_A_KERNEL - 1, np.float32, DTYPES[0]),
        (WORTH_A_KERNEL, np.float64, DTYPES[1]),
        (0, np.float32, DTYPES[0]),
    ):
        numbers = random(size, dtype=wide) * 1e5
        check_bits(rounded(numbers, dtype), numbers, dtype)
    same = random(WORTH_A_KERNEL)
    assert rounded(same, same.dtype) is same


def test_without_machine_code_numpy_rounds(monkeypatch):
    monkeypatch.setattr(narrowing, "entry_for", None)
    monkeypatch.setattr(loading, "fault", lambda: "No module named 'llvmlite'")
    numbers = random(WORTH_A_KERNEL)
    check_bits(rounded(numbers, DTYPES[0]), numbers, DTYPES[0])
