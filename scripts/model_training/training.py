"""The steps of the training: Muon for matrices, AdamW for the embedding, rates that fall in the end.

Everything is counted in steps and drawn from seeds: one machine with one version of torch makes the same bytes again.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice

import llvmlite.binding as llvm
import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from model_training.network import Network, Sizes
from model_training.windows import Windows

BATCH, SEED = 8, 0
MATRIX_RATE, EMBEDDING_RATE = 0.02, 3e-3
WARM = 50  # steps in which a phase's rates rise from 0
LARGEST_GRADIENT = 1.0
SMOOTHING = 0.97


@dataclass(frozen=True)
class Phase:
    """Some steps with optimisers of their own, whose rates go in a line from `first` to `last`, times the full rate."""

    steps: int
    repeated: float  # share of the windows that say a span again and again
    first: float
    last: float


PHASES = (
    Phase(2000, repeated=0.5, first=1.0, last=1.0),  # heads take their parts
    Phase(4000, repeated=0.15, first=1.0, last=0.03),  # and the model learns its texts
)


@dataclass(frozen=True)
class Step:
    """How far the training is: the network as it is now, its loss (smoothed), and the CPU seconds it took."""

    number: int
    network: Network
    loss: float
    seconds: float


def train(text: npt.NDArray[np.int16], sizes: Sizes, stop: int | None = None) -> Iterator[Step]:
    """All steps, or the first `stop` of them, one after the other."""
    torch.manual_seed(SEED)
    network = Network(sizes)
    windows = Windows(text, sizes.context, sizes.vocabulary, np.random.default_rng(SEED))
    losses = chain.from_iterable(run(network, windows, phase) for phase in PHASES)
    smooth, spent, began = 0.0, 0.0, time.process_time()
    for number, loss in enumerate(islice(losses, stop), 1):
        smooth = loss if number == 1 else SMOOTHING * smooth + (1 - SMOOTHING) * loss
        spent += time.process_time() - began
        yield Step(number, network, smooth, spent)
        began = time.process_time()  # what is done between steps does not count


def run(network: Network, windows: Windows, phase: Phase) -> Iterator[float]:
    """The steps of a phase; the loss before each."""
    optimisers = _optimisers(network)
    groups = [group for optimiser in optimisers for group in optimiser.param_groups]
    rates = [group["lr"] for group in groups]
    for number in range(phase.steps):
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate * schedule(number, phase)
        yield _step(network, torch.from_numpy(windows.draw(BATCH, phase.repeated)), optimisers)


def schedule(number: int, phase: Phase) -> float:
    """The share of the full rate at a step of a phase."""
    along = number / phase.steps
    return min(1.0, (number + 1) / WARM) * (phase.first + (phase.last - phase.first) * along)


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
