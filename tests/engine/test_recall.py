"""What calls leave behind for later ones: that it is told apart, bounded, and safe among threads."""

import sys
import tracemalloc
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from clearhead import alibi, attend, attention, causal, documents, problem, softcap, where, window
from clearhead.definition import textbook
from clearhead.engine import bounded_cache
from clearhead.engine.launch import launch_on, spec_for
from clearhead.engine.launch_cache import launches
from clearhead.gradients import backward as gradients
from clearhead.machine import compile as compiling
from clearhead.rules import captured_names, trace
from tests.arrays import random


@pytest.fixture
def few(monkeypatch):
    """Caches that are full at once, and threads that change places at every step."""
    monkeypatch.setattr(bounded_cache, "SMALL", -1)
    for cache in (launches, gradients.launches):
        monkeypatch.setattr(cache, "most", 2)
        monkeypatch.setattr(cache, "most_large", 1)
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


def test_threads_share_what_is_remembered(few):
    operands = [random(1 + n % 5, 3) for n in range(40)]

    def both(x):
        return attend(x, x, x, threads=1).backward(x).q

    wanted = [both(x) for x in operands[:5]]
    with ThreadPoolExecutor(8) as pool:
        for n, found in enumerate(pool.map(both, operands * 50)):
            assert found.shape == wanted[n % 5].shape


class Unhashable:
    """A rule that Python cannot hash, for it says when it is equal alone."""

    def __eq__(self, other):
        return False

    def __call__(self, score, batch, head, query, key):
        return score * 2


@pytest.mark.parametrize(
    "given",
    [
        {"score": [[softcap(2.0)], alibi(2)]},
        {"score": ([softcap(2.0)], (), alibi(2))},
        {"score": Unhashable()},
        {"score": [Unhashable()]},
        {"scale": np.array(0.3)},
    ],
)
def test_what_has_no_hash_can_be_given(given):
    x = random(2, 9, 4)
    done = attend(x, x, x, **given)
    np.testing.assert_array_equal(attention(x, x, x, **given), done.output)
    np.testing.assert_allclose(done.output, textbook.attention(x, x, x, **given), atol=1e-6)
    assert done.backward(x).q.shape == x.shape


def test_gradients_belong_to_the_function_that_ran():
    x, weights = random(2, 9, 4), [random(2), random(2, seed=1)]
    slopes = weights[0]

    def rule(score, batch, head, query, key):
        return score * slopes[head]

    done = attend(x, x, x, score=rule)
    want, weights_then = done.backward(x), attend(x, x, x, score=rule).weights[:]
    slopes = weights[1]
    launches.clear()
    gradients.launches.clear()
    again = attend(x, x, x, score=rule)
    for name in "qkv":
        np.testing.assert_array_equal(getattr(done.backward(x), name), getattr(want, name))
        assert not np.array_equal(getattr(again.backward(x), name), getattr(want, name))
    np.testing.assert_array_equal(done.weights[:], weights_then)


def test_layouts_of_documents_do_not_pile_up():
    x, rng = random(8192, 4), np.random.default_rng(0)

    def step():
        lengths = rng.integers(1, 8, 3000)
        cut = lengths[: np.searchsorted(lengths.cumsum(), 8192)]
        attend(x, x, x, mask=documents([*cut, 8192 - cut.sum()])).backward(x)

    step()
    tracemalloc.start()
    for _ in range(12):
        step()
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept < 12 * 0.2e6


def test_large_entries_hold_few_bytes_together():
    kept = bounded_cache.BoundedCache[int, None](most=10, most_large=3)
    third = bounded_cache.MOST_BYTES // 3
    for key, size in enumerate([third, third, 10, 2 * third, 10, 3 * third + 9, 1 << 17, 1 << 17, 1 << 17]):
        kept.keep(key, None, size)
        assert sum(kept.large.values()) <= bounded_cache.MOST_BYTES
        assert key in kept or size > bounded_cache.MOST_BYTES
    assert list(kept) == [2, 4, 6, 7, 8]


def test_kernels_are_let_go_but_not_while_something_holds_their_entry(monkeypatch):
    monkeypatch.setattr(compiling, "MOST_KERNELS", 2)
    x, kernels = random(20, 4), compiling.Kernels()
    rules = [(mask, score) for score in ((), softcap(2.0)) for mask in (causal(), window(5))]
    first, *others = (problem(x, x, x, mask=mask, score=score) for mask, score in rules)
    launch = launch_on(kernels.get(spec_for(first)), first, ())
    held, *free = (weakref.ref(kernels.get(spec_for(each)).entry) for each in (first, *others))
    assert list(kernels.known) == [spec_for(each) for each in others[1:]]
    assert held() is launch.entry
    assert [entry() is None for entry in free] == [True, False, False]
    library = held().code.owners[-1]
    del launch
    assert held() is None
    assert sys.getrefcount(library) == 2  # nothing else keeps the code


def test_functions_that_are_made_anew_do_not_pile_up():
    x = random(3, 2)
    for n in range(captured_names.MOST_CODES + 10):
        mask = where(eval(f"lambda batch, head, query, key: key <= query + {n / 8}"))  # noqa: S307
    attention(x, x, x, mask=mask)
    for kept in (trace.untraceable_line, captured_names.names_in_code):
        assert kept.cache_info().currsize <= captured_names.MOST_CODES
