"""What the shipped model must reach, measured by its own code on a text held out: tests/model/held_out.txt."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from clearhead.model import Loss, Model, head_scores
from clearhead.model.heads import HeadScores

TESTS = Path(__file__).parents[2] / "tests" / "model"
HELD_OUT, RECORDED = TESTS / "held_out.txt", TESTS / "recorded.json"
BYTES, LOSS, PREVIOUS, INDUCTION, SINK = 3_000_000, 3.6, 0.85, 0.85, 0.4


@dataclass(frozen=True)
class Figures:
    """What was measured; `size` in bytes of both files."""

    size: int
    loss: Loss
    heads: HeadScores

    def __str__(self) -> str:
        heads, loss = self.heads, self.loss
        lines = [
            f"both files: {self.size} bytes (gate {BYTES})",
            f"held-out loss: {loss.mean:.4f} nats a token (gate {LOSS}), perplexity {loss.perplexity:.1f}, "
            f"{loss.bits_per_character:.3f} bits a character; a uniform guess {loss.uniform:.3f} nats",
            f"previous token: {best(heads.previous)} (gate {PREVIOUS})",
            f"induction: {best(heads.induction, 2)} (gate two of {INDUCTION})",
            f"sink: {best(heads.sink)} (gate {SINK})",
            f"itself: {best(heads.itself)}; signs: {best(heads.punctuation)}, by chance {heads.signs:.3f}",
        ]
        return "\n".join(lines)

    @property
    def passed(self) -> bool:
        """Whether every gate is."""
        previous, induction, sink = (
            np.sort(x, axis=None) for x in (self.heads.previous, self.heads.induction, self.heads.sink)
        )
        heads = previous[-1] >= PREVIOUS and induction[-2] >= INDUCTION and sink[-1] >= SINK
        return bool(heads and self.size <= BYTES and self.loss.mean <= LOSS)

    def record(self) -> None:
        """Write down what the tests hold the shipped model to."""
        heads = {name: np.asarray(score).round(5).tolist() for name, score in asdict(self.heads).items()}
        told = {"loss": round(self.loss.mean, 5), **heads}
        lines = (f"{json.dumps(name)}: {json.dumps(score)}" for name, score in told.items())
        RECORDED.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")


def measure(model: Model, size: int) -> Figures:
    """The figures of a model whose files take up `size` bytes."""
    text = HELD_OUT.read_text("utf-8")
    return Figures(size, model.loss(text), head_scores(model, text))


def best(scores: np.ndarray, count: int = 1) -> str:
    """The largest scores, and which heads have them."""
    order = np.argsort(-scores, axis=None)[:count]
    places = (np.unravel_index(at, scores.shape) for at in order)
    return ", ".join(f"{scores[place]:.3f} (layer {place[0]}, head {place[1]})" for place in places)
