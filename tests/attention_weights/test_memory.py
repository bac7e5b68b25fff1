"""Kernels write only where they may: arrays made for a call stand between fences, which must be whole after it."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from clearhead import attend, documents, window
from clearhead.rules.mask_kinds import Mask

FENCE, POST = 4096, 0xA5  # bytes


@pytest.fixture
def fenced(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[np.ndarray, int]]]:
    """Puts fences around what numpy allocates; gives those arrays with their fences, and how long they are."""
    made: list[tuple[np.ndarray, int]] = []

    def fencing(plain: Callable[..., np.ndarray], filling: int) -> Callable[..., np.ndarray]:
        def allocate(shape: Any, dtype: Any = float, *others: Any, **named: Any) -> np.ndarray:
            if others or named or not np.dtype(dtype or float).isbuiltin or np.dtype(dtype).hasobject:
                return plain(shape, dtype, *others, **named)
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            memory = np.full(size + 2 * FENCE, POST, np.uint8)
            memory[FENCE : FENCE + size] = filling
            made.append((memory, size))
            return memory[FENCE : FENCE + size].view(dtype).reshape(shape)

        return allocate

    monkeypatch.setattr(np, "empty", fencing(np.empty, 0xEE))
    monkeypatch.setattr(np, "zeros", fencing(np.zeros, 0))
    yield made
    assert made
    for memory, size in made:
        assert (memory[:FENCE] == POST).all(), f"written before an array of {size} bytes"
        assert (memory[FENCE + size :] == POST).all(), f"written behind an array of {size} bytes"


@pytest.mark.parametrize("mask", [documents([43, 85]), window(20)], ids=repr)
@pytest.mark.usefixtures("fenced")
def test_kernels_stay_inside_their_arrays(mask: Mask) -> None:
    q, k, v = np.random.default_rng(0).standard_normal((3, 2, 128, 16)).astype(np.float32)
    w = attend(q, k, v, mask=mask).weights
    found, want = w.summary(), np.asarray(w)
    assert np.allclose(found.received_sum, want.sum(axis=-2), atol=1e-6)
    assert np.array_equal(found.received_max, want.max(axis=-2))
