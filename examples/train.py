"""A small language model learns Moby-Dick on a CPU, once with clearhead's attention and once with PyTorch's.

pip install 'clearhead[torch,plot]'
python examples/train.py                 # some minutes on two cores; writes train.png
python examples/train.py --steps 20      # a glance

Two models begin with the same numbers and see the same text, step by step in turns: their losses must coincide, and
their times can be compared. Memory is each one's peak in a process of its own, libraries included. A decoder-only
transformer, pre-norm: attention and MLP sub-layers, each behind a layer norm and added to its input (Radford et al.
2019).
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from clearhead.adapters import torch as clearhead_torch

TEXT = Path(__file__).with_name("moby_dick.txt")
ATTENTION: dict[str, Callable[..., torch.Tensor]] = {
    "clearhead": clearhead_torch.scaled_dot_product_attention,
    "PyTorch": functional.scaled_dot_product_attention,
}


@dataclass(frozen=True)
class Sizes:
    """How large the model and its batches are; characters are bytes."""

    dim: int = 128
    heads: int = 4
    layers: int = 4
    length: int = 512
    batch: int = 4


class Layer(nn.Module):
    """x + attention(norm(x)), and then x + MLP(norm(x))."""

    def __init__(self, sizes: Sizes, attention: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.heads, self.attention = sizes.heads, attention
        self.before_attention, self.before_mlp = nn.LayerNorm(sizes.dim), nn.LayerNorm(sizes.dim)
        self.parts, self.output = nn.Linear(sizes.dim, 3 * sizes.dim), nn.Linear(sizes.dim, sizes.dim)
        self.mlp = nn.Sequential(nn.Linear(sizes.dim, 4 * sizes.dim), nn.GELU(), nn.Linear(4 * sizes.dim, sizes.dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, length, dim) → the same."""
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (batch, heads, length, dim / heads)
            for part in self.parts(self.before_attention(x)).chunk(3, dim=-1)
        )
        y = self.attention(q, k, v, is_causal=True)
        x = x + self.output(y.transpose(1, 2).flatten(2))
        return x + self.mlp(self.before_mlp(x))


class Model(nn.Module):
    """Bytes in, the next byte's logits out."""

    def __init__(self, sizes: Sizes, attention: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.bytes, self.places = nn.Embedding(256, sizes.dim), nn.Embedding(sizes.length, sizes.dim)
        self.layers = nn.Sequential(*(Layer(sizes, attention) for _ in range(sizes.layers)))
        self.norm, self.next = nn.LayerNorm(sizes.dim), nn.Linear(sizes.dim, 256)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """(batch, length) → (batch, length, 256)."""
        x = self.bytes(text) + self.places(torch.arange(text.shape[1]))
        return self.next(self.norm(self.layers(x)))


@dataclass
class Learner:
    """One model in training."""

    name: str
    sizes: Sizes
    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.model = Model(self.sizes, ATTENTION[self.name])
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=1e-3, weight_decay=0.01)

    def step(self, text: torch.Tensor) -> None:
        """One batch (batch, length + 1)."""
        start = time.perf_counter()
        logits = self.model(text[:, :-1])
        loss = functional.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten())
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.seconds.append(time.perf_counter() - start)
        self.losses.append(float(loss.detach()))


def batches(sizes: Sizes, steps: int) -> list[torch.Tensor]:
    """The same random places of the text for everyone."""
    text = torch.frombuffer(bytearray(TEXT.read_bytes()), dtype=torch.uint8).long()
    draw = torch.Generator().manual_seed(1)
    starts = torch.randint(len(text) - sizes.length - 1, (steps, sizes.batch), generator=draw)
    return [torch.stack([text[s : s + sizes.length + 1] for s in own]) for own in starts.tolist()]


def memory(name: str) -> float:
    """Peak MiB of a process that takes three steps."""
    line = [sys.executable, __file__, "--memory-of", name]
    return float(subprocess.run(line, capture_output=True, text=True, check=True).stdout.split()[-1])  # noqa: S603


def draw(learners: list[Learner], used: dict[str, float], path: Path) -> None:
    """Losses over each other, step time and memory side by side."""
    from matplotlib.figure import Figure

    from clearhead import plot

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    loss, times, room = figure.subplots(1, 3, width_ratios=[2.2, 1, 1])
    for learner, style in zip(learners, ({"linewidth": 3.5, "color": "#9cc3e0"}, {"color": "#06203f"}), strict=True):
        loss.plot(learner.losses, label=learner.name, **style)
    loss.set(xlabel="step", ylabel="loss (nats a byte)")
    loss.legend(frameon=False)
    names = [learner.name for learner in learners]
    times.bar(names, [1e3 * typical(learner.seconds) for learner in learners], color=["#0072b2", "#b0b0b0"])
    times.set(title="step, ms")
    room.bar(names, [used[name] for name in names], color=["#0072b2", "#b0b0b0"])
    room.set(title="peak memory, MiB")
    plot.save(figure, path)


def typical(seconds: list[float]) -> float:
    """The median."""
    return sorted(seconds)[len(seconds) // 2]


def main() -> None:
    """Train both, compare, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--output", type=Path, default=Path("train.png"))
    parser.add_argument("--memory-of", choices=ATTENTION, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.steps < 1:
        parser.error(f"--steps {options.steps} trains nothing: give 1 or more.")
    sizes = Sizes()
    if options.memory_of:
        learner, text = Learner(options.memory_of, sizes), batches(sizes, 3)
        for own in text:
            learner.step(own)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    learners = [Learner(name, sizes) for name in ATTENTION]
    for number, text in enumerate(batches(sizes, options.steps)):
        for learner in learners if number % 2 else reversed(learners):
            learner.step(text)
        if number % 20 == 0 or number == options.steps - 1:
            print(f"step {number:4}", *(f"{x.name} {x.losses[-1]:.4f}" for x in learners), sep="   ", flush=True)
    apart = max(abs(a - b) for a, b in zip(learners[0].losses, learners[1].losses, strict=True))
    used = {learner.name: memory(learner.name) for learner in learners}
    print(f"losses are never further apart than {apart:.1e}")
    for learner in learners:
        print(f"{learner.name}: {1e3 * typical(learner.seconds):.0f} ms a step, {used[learner.name]:.0f} MiB")
    draw(learners, used, options.output)
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
