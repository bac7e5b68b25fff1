"""The steps of the training: Muon for matrices, AdamW for the embedding, rates that fall in the end.

Everything is counted in steps and drawn from seeds: one machine with one version of torch makes the same bytes again.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import llvmlite.binding as llvm
import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from model_training.network import Network, Sizes
from model_training.windows import Windows

STEPS, BATCH, SEED = 8_000, 8, 0
MATRIX_RATE, EMBEDDING_RATE = 0.02, 3e-3
WARM, CONSTANT, LAST = 50, 0.4, 0.03  # steps of warming up; the share of steps at the full rate; the last rate of all
REPEATED_FIRST, REPEATED = 0.5, 0.15  # of the windows: at the full rate, while heads take their parts, and afterwards
LARGEST_GRADIENT = 1.0
SMOOTHING = 0.97


@dataclass(frozen=True)
class Step:
    """How far the training is: the network as it is now, its loss (smoothed), and the CPU seconds it took."""

    number: int
    network: Network
    loss: float
    seconds: float


def train(text: npt.NDArray[np.int16], sizes: Sizes, steps: int = STEPS, stop: int | None = None) -> Iterator[Step]:
    """The first `stop` of `steps` steps, one after the other."""
    torch.manual_seed(SEED)
    network = Network(sizes)
    windows = Windows(text, sizes.context, sizes.vocabulary, np.random.default_rng(SEED))
    optimisers = _optimisers(network)
    rates = [group["lr"] for optimiser in optimisers for group in optimiser.param_groups]
    smooth, spent = 0.0, 0.0
    for number in range(steps if stop is None else min(stop, steps)):
        began = time.process_time()
        for group, rate in zip((g for o in optimisers for g in o.param_groups), rates, strict=True):
            group["lr"] = rate * schedule(number, steps)
        repeated = REPEATED_FIRST if number < CONSTANT * steps else REPEATED
        loss = _step(network, torch.from_numpy(windows.draw(BATCH, repeated)), optimisers)
        smooth = loss if number == 0 else SMOOTHING * smooth + (1 - SMOOTHING) * loss
        spent += time.process_time() - began
        yield Step(number + 1, network, smooth, spent)


def schedule(number: int, steps: int) -> float:
    """The share of the full rate at a step: a ramp up, a plateau, a line down to 3 %."""
    along = number / steps
    falling = 1 - max(0.0, along - CONSTANT) / (1 - CONSTANT) * (1 - LAST)
    return min(1.0, (number + 1) / WARM) * falling


def has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 by itself; on others it would be slower than float32."""
    return bool(dict(llvm.get_host_cpu_features()).get("avx512bf16"))


def _optimisers(network: Network) -> tuple[torch.optim.Optimizer, ...]:
    matrices = [p for p in network.layers.parameters() if p.ndim == 2]
    others = [p for p in network.parameters() if not any(p is matrix for matrix in matrices)]
    return (
        torch.optim.Muon(matrices, lr=MATRIX_RATE, momentum=0.95, weight_decay=0.01, adjust_lr_fn="original"),
        torch.optim.AdamW(others, lr=EMBEDDING_RATE, betas=(0.9, 0.95), weight_decay=0),
    )


def _step(network: Network, windows: torch.Tensor, optimisers: tuple[torch.optim.Optimizer, ...]) -> float:
    """One step of both optimisers on some windows; the loss before it, in nats a token."""
    with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16()):
        scores = network(windows[:, :-1])
    loss = functional.cross_entropy(scores.float().flatten(0, 1), windows[:, 1:].flatten())
    network.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), LARGEST_GRADIENT)
    for optimiser in optimisers:
        optimiser.step()
    return loss.item()
