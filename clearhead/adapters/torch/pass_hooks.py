"""Hooks that tell a recorder where each pass of a model, and each of its layers, begins and ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from clearhead.adapters.torch.patches import cuts_patches
from clearhead.adapters.torch.recording import Recorder


@dataclass(eq=False)
class Hook:
    """A hook of a watched model, which its copies do not share: nobody watches them, nor would remove it there."""

    told: Callable[..., None] | None

    def __call__(self, *args: Any, **options: Any) -> None:
        """Tell the recorder; a copy tells nobody."""
        if self.told is not None:
            self.told(*args, **options)

    def __reduce__(self) -> tuple[Any, ...]:
        """What copy and pickle make of it."""
        return Hook, (None,)


@contextmanager
def passes_of(model: torch.nn.Module, recorder: Recorder) -> Iterator[None]:
    """Tell a recorder where each pass of a model, or of a model inside it, begins and ends."""
    recorder.model, recorder.modules = model, frozenset(model.modules())
    recorder.patches.paths = {module: path for path, module in model.named_modules()}
    hooks = []
    fused = torch.nn.TransformerEncoderLayer, torch.nn.MultiheadAttention  # hooks would turn their fast paths off
    for module in model.modules():
        if module in recorder.layers and not isinstance(module, fused):
            hooks.append(module.register_forward_pre_hook(Hook(recorder.enters)))
        if cuts_patches(module):
            hooks.append(module.register_forward_hook(Hook(recorder.patches.cut)))
        whole = any(base.__name__ == "PreTrainedModel" for base in type(module).__mro__)
        if (module is model or whole) and not isinstance(module, fused):
            hooks.append(module.register_forward_pre_hook(Hook(recorder.begins), with_kwargs=True))
            hooks.append(module.register_forward_hook(Hook(recorder.ends), with_kwargs=True, always_call=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        if recorder.running is not None:
            recorder.undo_pass()
        recorder.let_go()
