"""precision="native": bfloat16 by the processor's own instruction, near the definition and touching nothing hidden."""

from functools import partial

import ml_dtypes
import numpy as np
import pytest

import clearhead
from clearhead import alibi, attend, attention, causal, full, softcap, window
from clearhead.definition import textbook
from clearhead.machine.target import host_features, native_isas
from clearhead.testing import check_same_bits, using_isa
from tests import arrays

BFLOAT16 = ml_dtypes.bfloat16
HAS = "avx512" in native_isas() and host_features().get("avx512bf16", False)
needs_it = pytest.mark.skipif(not HAS, reason="this processor has no bfloat16 instructions")


random = partial(arrays.random, dtype=BFLOAT16)


def native(q, k, v, **rules):
    return attention(q, k, v, precision="native", **rules)


@needs_it
@pytest.mark.parametrize("mask", [causal(align="end"), full()])
@pytest.mark.parametrize("queries", [1, 2, 15, 16, 17, 63, 64, 65, 129])
@pytest.mark.parametrize("keys", [1, 2, 17, 127, 128, 129, 255, 2049])
def test_native_is_within_a_few_units_of_the_definition(queries, keys, mask):
    q, k, v = random(4, queries, 48), random(2, keys, 48, seed=1), random(2, keys, 80, seed=2)
    exact = textbook.attention(*(x.astype(np.float64) for x in (q, k, v)), mask=mask)
    got = attend(q, k, v, mask=mask, precision="native")
    # A rounded query moves scores by 2⁻⁹ of their size, a rounded weight its value; then the output is rounded.
    assert np.abs(got.output.astype(np.float64) - exact).max() <= 2.0**-6
    assert np.abs(got.output.astype(np.float64) - exact).mean() <= 2.0**-9


@needs_it
@pytest.mark.parametrize("queries", [1, 17, 64, 130])
def test_native_takes_score_rules_and_sinks(queries):
    q, k, v = random(4, queries, 32), random(2, 200, 32, seed=1), random(2, 200, 48, seed=2)
    rules = {"score": [softcap(2.0), alibi(4), lambda s, b, h, i, j: s * (1 + h)], "sink": np.arange(4.0)}
    exact = textbook.attention(*(x.astype(np.float64) for x in (q, k, v)), mask=causal(align="end"), **rules)
    got = native(q, k, v, mask=causal(align="end"), **rules)
    assert np.abs(got.astype(np.float64) - exact).max() <= 2.0**-5
    assert np.abs(got.astype(np.float64) - exact).mean() <= 2.0**-9


@needs_it
def test_native_touches_nothing_hidden():
    x = random(2, 70, 32)
    before = native(x, x, x)
    for row in (0, 1, 30, 63, 64, 68):
        for poison in (np.nan, np.inf, -np.inf):
            spoilt = x.copy()
            spoilt[:, row + 1 :] = poison
            check_same_bits(native(x, spoilt, spoilt)[:, : row + 1], before[:, : row + 1])


@needs_it
def test_native_gives_the_same_bits_in_chunks_batches_and_threads():
    q, k, v = random(3, 300, 64), random(3, 300, 64, seed=1), random(3, 300, 64, seed=2)
    whole = native(q, k, v, threads=1)
    for threads in (2, 3, 7):
        check_same_bits(native(q, k, v, threads=threads), whole)
    for start, stop in ((0, 1), (5, 70), (64, 129), (200, 300)):
        part = native(q[:, start:stop], k[:, :stop], v[:, :stop], mask=causal(align="end"))
        check_same_bits(part, whole[:, start:stop])
    check_same_bits(native(q[1], k[1], v[1]), whole[1])


def test_what_native_cannot_do_is_an_error():
    x, odd = random(2, 20, 32), random(2, 20, 17)
    for call, words in (
        (lambda: native(x.astype(np.float32), x.astype(np.float32), x.astype(np.float32)), ["float32", "exact"]),
        (lambda: native(odd, odd, odd), ["(2, 20, 17)", "16"]),
        (lambda: native(x, x, x, mask=window(3)), ["window(3, 0)", "exact"]),
        (lambda: attention(x, x, x, precision="fast"), ["'fast'", "native"]),
    ):
        with pytest.raises(clearhead.InputError) as caught:
            call()
        assert all(word in str(caught.value) for word in words), caught.value
    with using_isa("generic"), pytest.raises(clearhead.MachineError, match="AVX-512"):
        native(x, x, x)
