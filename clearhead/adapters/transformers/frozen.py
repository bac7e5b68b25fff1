"""Freeze a normalisation's scale at one position, so that what it does there is linear in each part of its input.

Responsible for finding out what a module called a norm computes, by asking it: gain · x · scale(x) + bias, for x or for
x − mean. `attribution` puts frozen norms in place of a model's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from clearhead.errors import InputError

TOLERANCES = {  # relative; many models compute their norms in float32 whatever their dtype
    torch.float64: 1e-5,
    torch.float32: 1e-4,
    torch.float16: 2e-2,
    torch.bfloat16: 1e-1,
}


@dataclass(frozen=True)
class FrozenNorm:
    """A norm whose scale stays that of one input: x ↦ gain · x (less its mean, if it centres) + bias."""

    gain: torch.Tensor
    bias: torch.Tensor
    centres: bool

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The frozen norm of a vector."""
        return self.gain * centred(x, self.centres) + self.bias


def centred(x: torch.Tensor, centres: bool) -> torch.Tensor:
    """A vector less its mean, if asked for."""
    return x - x.mean(-1, keepdim=True) if centres else x


def frozen_norm(norm: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, name: str) -> FrozenNorm:
    """What a norm computes of the vector `x`, with its scale frozen there; raises InputError if it is not a norm.

    The probe is ±1 in turn, of which no entry is 0: what comes out of the probe and of its opposite gives bias and
    gain, and a probe that is moved by 1 tells whether the norm centres.
    """
    probe = torch.ones_like(x)
    probe[1::2] = -1
    up, down, moved = norm(probe), norm(-probe), norm(probe + 1)
    bias, odd = (up + down) / 2, (up - down) / 2
    centres = bool(torch.allclose(moved, up, rtol=1e-2, atol=1e-4))
    gain = odd / centred(probe, centres)
    out, shape = norm(x), gain * centred(x, centres)
    scale = ((out - bias) * shape).sum() / (shape * shape).sum().clamp_min(torch.finfo(x.dtype).tiny)
    frozen = FrozenNorm(gain * scale, bias, centres)
    if not ((frozen(x) - out).abs() <= TOLERANCES[x.dtype] * out.abs().max()).all():
        raise InputError(
            f"{name} is not gain · x · scale + bias, so its scale cannot be frozen: what heads add to a logit through "
            "it is not defined. Ask for the heads' own outputs, by clearhead.head_outputs."
        )
    return frozen


def is_norm(module: Any) -> bool:
    """Whether a module is a normalisation, by its class's name."""
    return "norm" in type(module).__name__.lower()
