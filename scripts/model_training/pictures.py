"""The pictures of docs/model.md: how the losses and heads went in training, and what each head looks at."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from clearhead import plot
from clearhead.attention_weights.figures.canvas import canvas, caption
from clearhead.attention_weights.figures.maps import paint
from clearhead.attention_weights.figures.scales import Scale
from clearhead.model import HeadScores, Model, head_scores
from model_training.gates import HELD_OUT
from model_training.monitor import Measured

PROMPT = "My father went to the house. My mother went to the city. My father went to the house, and my mother"
ROLES = {"previous": "previous token", "induction": "induction", "sink": "sink", "itself": "itself"}  # score → its name
CLEAR = 0.4  # a score from which a head is called by it
SIGNS = 2.0  # times chance from which a head is called one of punctuation


def draw(model: Model, lines: list[Measured], folder: Path) -> None:
    """Write model_training.png, model_heads.png and model_induction.png."""
    scores = head_scores(model, HELD_OUT.read_text("utf-8"))
    plot.save(_training(lines), folder / "model_training.png")
    plot.save(_heads(model, scores), folder / "model_heads.png")
    plot.save(_induction(model, scores), folder / "model_induction.png")


def _training(lines: list[Measured]) -> Figure:
    figure, (losses, heads) = canvas(7.2, 6.0, "light", 2)
    colours, tokens = plot.COLOURS["light"], [line.tokens / 1e6 for line in lines]
    shown = {
        losses: {"training, with its repeats (smoothed)": "training", "held out": "held_out"},
        heads: {
            "previous token": "previous",
            "induction": "induction",
            "induction, the second best head": "second_induction",
            "sink": "sink",
        },
    }
    paints = {"training": colours.faint, "held_out": colours.bar, "previous": colours.bar, "sink": colours.ink}
    for axes, curves in shown.items():
        for label, name in curves.items():
            values = [getattr(line, name) for line in lines]
            dashed = "--" if name == "second_induction" else "-"
            axes.plot(tokens, values, dashed, color=paints.get(name, colours.chosen), label=label, linewidth=1.6)
        axes.legend(frameon=False, fontsize=8)
        axes.set_xlim(0, tokens[-1])
    losses.set_ylabel("nats a token")
    losses.set_ylim(2.5, 8)
    heads.set_ylabel("best head's share")
    heads.set_ylim(0, 1)
    heads.set_xlabel("million tokens read")
    caption(figure, "light", "The training of the small language model")
    return figure


def _heads(model: Model, scores: HeadScores) -> Figure:
    tokens = model.tokenizer.encode(PROMPT)
    layers = model.forward(tokens).layers
    figure, grid = canvas(8.4, 8.8, "light", len(layers), model.parameters.heads)
    for layer, done in enumerate(layers):
        pictures = done.weights.map(size=len(tokens))
        for head, axes in enumerate(grid[layer]):
            paint(axes, pictures[head], "light", Scale(0.0, 1.0))
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_title(f"{layer}.{head} {role(scores, layer, head)}", fontsize=7.5, color=plot.COLOURS["light"].ink)
    reading = "queries down, keys across; a row's weights sum to 1; colours linear from 0 to 1"
    figure.suptitle(f"Every head on “{PROMPT}”\n{reading}", fontsize=9)
    return figure


def _induction(model: Model, scores: HeadScores) -> Figure:
    layer, head = np.unravel_index(scores.induction.argmax(), scores.induction.shape)
    tokens = model.tokenizer.encode(PROMPT)
    w = model.forward(tokens).layers[layer].weights[int(head)]
    return plot.heat(w, model.tokenizer.names(tokens), title=f"Layer {layer}, head {head}: induction")


def role(scores: HeadScores, layer: int, head: int) -> str:
    """What a head is called: by its clearest score, with it; nothing if none is clear.

    A head that copies rests on `<s>` where there is nothing to copy: then it is called both.
    """
    own = {name: float(getattr(scores, name)[layer, head]) for name in ROLES}
    said = [f"{ROLES[name]} {share:.2f}" for name, share in own.items() if share >= CLEAR]
    times = scores.punctuation[layer, head] / scores.signs
    return ", ".join(said or ([f"signs × {times:.1f}"] if times >= SIGNS else []))
