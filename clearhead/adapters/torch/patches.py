"""The rows and columns of patches that a model cuts an image into, for the layers that attend to them.

Patches come from a convolution whose steps are as wide as it is; the layers nearest to it in the model see them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import torch

from clearhead.adapters.torch.attention_layers import AttentionLayer


def cuts_patches(module: torch.nn.Module) -> bool:
    """Whether a module may cut images into patches."""
    return isinstance(module, torch.nn.Conv2d) and module.kernel_size == module.stride != (1, 1)


@dataclass(eq=False)
class Patches:
    """What convolutions cut last."""

    paths: dict[torch.nn.Module, str] = field(default_factory=dict)  # of a model's modules
    grids: dict[torch.nn.Module, tuple[int, int]] = field(default_factory=dict)

    def cut(self, module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """A convolution returns an image (batch, channels, rows, columns)."""
        if isinstance(output, torch.Tensor) and output.dim() == 4:
            self.grids[module] = int(output.shape[2]), int(output.shape[3])

    def grid_of(self, part: str, layers: Collection[AttentionLayer]) -> tuple[int, int] | None:
        """The patches that a part is given, if no other is nearer to where they are cut."""
        for module, grid in self.grids.items():
            here = self.paths[module].split(".")
            near = {layer.path: shared(here, layer.path.split(".")) for layer in layers}
            own = max((near[layer.path] for layer in layers if layer.part == part), default=-1)
            if own == max(near.values()):
                return grid
        return None


def shared(path: list[str], other: list[str]) -> int:
    """How many names two paths begin with in common."""
    return next((n for n, (a, b) in enumerate(zip(path, other, strict=False)) if a != b), min(len(path), len(other)))
