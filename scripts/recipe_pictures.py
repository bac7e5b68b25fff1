"""The pictures of docs/recipes: each recipe's own examples are run, and what they computed is drawn."""

import doctest
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from clearhead import plot

RECIPES = Path(__file__).resolve().parents[1] / "docs" / "recipes"


def run(recipe: str) -> dict[str, Any]:
    """All names of a recipe, after its last example."""
    names: dict[str, Any] = {}
    for example in doctest.DocTestParser().get_examples((RECIPES / f"{recipe}.md").read_text("utf-8")):
        exec(compile(example.source, recipe, "single"), names)  # noqa: S102  the documentation's own
    return names


def whisper(names: dict[str, Any]) -> Figure:
    """Sound, weights and the path through them, over the same time."""
    sound, words, ends = names["tests"][0]
    w = names["cross_attention"](sound, words)[names["followers"]]
    figure, (above, below) = plt.subplots(2, 1, figsize=(7, 4.2), sharex=True, layout="constrained")
    above.imshow(sound, aspect="auto", origin="lower", cmap="Greys", extent=(0, 120, -0.5, len(sound) - 0.5))
    above.set_ylabel("tone")
    below.imshow(np.asarray(w).mean(0)[:5], aspect="auto", cmap="Blues", extent=(0, 120, 4.5, -0.5))
    starts = [*names["begins"](sound, words, ends), ends[-1]]
    for number, (begin, end) in enumerate(pairwise(starts)):
        below.hlines(number, begin, end, color="tab:orange", linewidth=3)
    for axes in (above, below):
        for end in ends:
            axes.axvline(end, color="0.4", linewidth=0.8, linestyle=":")
    below.set(xlabel="frame of sound; dotted: where words truly end", ylabel="word to come", yticks=range(5))
    below.set_title("mean weight of the two heads, and the path", fontsize=9)
    return figure


def heads(names: dict[str, Any]) -> Figure:
    """A cell for each head, for both kinds."""
    figure, both = plt.subplots(1, 2, figsize=(6.4, 3), layout="constrained")
    for axes, (kind, scores) in zip(both, names["scores"].items(), strict=True):
        cells(axes, scores, 0, 1, "Blues")
        axes.set(title={"induction": "behind the earlier one", "previous": "on the token before"}[kind])
        axes.set(xlabel="head", ylabel="layer", xticks=range(4), yticks=range(4))
    return figure


def attribution(names: dict[str, Any]) -> Figure:
    """Heads by tokens."""
    by_key, words = names["by_key"], names["words"]
    figure, axes = plt.subplots(figsize=(7.4, 2.8), layout="constrained")
    cells(axes, by_key, -1.1, 1.1, "RdBu_r")
    axes.set(ylabel="head of layer 3", yticks=range(4), xticks=range(len(words)))
    axes.set_xticklabels([word.strip() or "<s>" for word in words], rotation=30)
    axes.set_title("nats that each token adds to the lead", fontsize=9)
    return figure


def cells(axes: Any, numbers: Any, low: float, high: float, colours: str) -> None:
    """A table with colours and its numbers."""
    axes.imshow(numbers, vmin=low, vmax=high, cmap=colours, aspect="auto")
    for (row, column), number in np.ndenumerate(numbers):
        strong = abs(number) > 0.6 * high
        text = f"{round(float(number), 2) + 0.0:.2f}"  # without a minus before 0.00
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color="w" if strong else "k")


def patches(names: dict[str, Any]) -> Figure:
    """The picture, and one row over it."""
    picture = np.clip((names["picture"].transpose(1, 2, 0) + 0.6) / 3.6, 0, 1)
    figure, (plain, covered) = plt.subplots(1, 2, figsize=(6.4, 3.3), layout="constrained")
    plain.imshow(picture)
    plain.set_title("the picture; the patch that asks", fontsize=9)
    plain.add_patch(Rectangle((23.5, 23.5), 8, 8, fill=False, edgecolor="w", linewidth=2))
    covered.imshow(picture.mean(-1), cmap="Greys_r")
    over = covered.imshow(names["over"], extent=(-0.5, 95.5, 95.5, -0.5), cmap="magma", alpha=0.75)
    covered.set_title("its weights, layer 0, head 2", fontsize=9)
    figure.colorbar(over, ax=covered, shrink=0.8)
    for axes in (plain, covered):
        axes.set(xticks=[], yticks=[])
    return figure


PICTURES: dict[str, tuple[str, Callable[[dict[str, Any]], Figure]]] = {
    "recipe-whisper.svg": ("whisper-alignment", whisper),
    "recipe-needle.svg": ("long-prompt", lambda names: names["figure"]),
    "recipe-heads.svg": ("finding-heads", heads),
    "recipe-attribution.svg": ("attributing-a-logit", attribution),
    "recipe-vit.png": ("vision-transformer", patches),
}


def write(folder: Path) -> None:
    """Draw all of them."""
    for name, (recipe, draw) in PICTURES.items():
        plot.save(draw(run(recipe)), folder / name)
        print(f"docs/pictures/{name}")
