"""What was found out about a mask, for the other layers that are given the same one."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from typing import Any

import torch

answers: dict[
    tuple[int, Hashable], tuple[Any, int, Any]
] = {}  # by mask and question: the mask, its version, the answer


def remembered(mask: Any, question: Hashable, find: Callable[[], Any]) -> Any:
    """The answer of `find`, which is asked once as long as the mask lives and is not changed.

    Where changes cannot be noticed, as in inference mode, or answers have gradients, it is asked each time.
    """
    if mask is None or (isinstance(mask, torch.Tensor) and (mask.is_inference() or mask.requires_grad)):
        return find()
    key = id(mask), question
    version = mask._version if isinstance(mask, torch.Tensor) else 0
    known = answers.get(key)
    if known is not None and known[0]() is mask and known[1] == version:
        return known[2]
    answer = find()
    answers[key] = weakref.ref(mask, lambda _: answers.pop(key, None)), version, answer
    return answer
