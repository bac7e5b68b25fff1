"""In no figure, of any size, do labels lie over one another or outside the figure; no token is taken for a formula."""

import warnings
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from matplotlib.axis import Axis
from matplotlib.text import Text

from clearhead import causal, full, plot, weights
from clearhead.attention_weights.figures import lettering

HOSTILE = [
    *("$x^2$", "$", "a_b_c", "\\frac{1}{2}", "\\", "{", "100%", "#&~", "\n", "\t", "", "   ", "a\x1b[31m", "\u202eabc"),
    *(
        "漢字かな交じり文の例",
        "한국어",
        "שלום עולם",
        "مرحبا بالعالم",
        "กำลังทดสอบ",
        "👩‍👩‍👧‍👦",
        "é" + "\u0302" * 12,
        "\u0301",
    ),
    *("W" * 30, "Donaudampfschifffahrtsgesellschaftskapitän", "Z" + "\u0351\u036b\u0343\u032a" * 20, "<s>"),
]
TOKENS: dict[str, Callable[[int], list[str]]] = {
    "short": lambda n: [f"t{i}" for i in range(n)],
    "long": lambda n: [f"{'mediterranean ' * 3}{i}" for i in range(n)],
    "hostile": lambda n: (HOSTILE * (n // len(HOSTILE) + 1))[:n],
}


@cache
def some(lead, queries, keys=None, seed=0):
    """Weights with a sink, and with an operand small enough for any length."""
    random = np.random.default_rng(seed)
    q = random.standard_normal((*lead, queries, 4)).astype(np.float32)
    k = random.standard_normal((*lead, keys or queries, 4)).astype(np.float32)
    k[..., 0, :] = q.mean(axis=-2) * 8
    return weights(q, k, mask=full() if keys else causal())


def texts(figure):
    """Every text that is drawn, and its box."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as a glyph that is missing, or a layout without room
        figure.draw_without_rendering()
    unseen = [axes for axes in figure.axes if not axes.get_visible()]
    hidden = {id(text) for axes in unseen for text in axes.findobj(Text)}
    for axis in figure.findobj(Axis):
        low, high = sorted(axis.get_view_interval())
        outside = [tick for tick in (*axis.majorTicks, *axis.minorTicks) if not low <= tick.get_loc() <= high]
        hidden |= {id(label) for tick in outside for label in (tick.label1, tick.label2)}
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip() and id(text) not in hidden:
            yield text, text.get_window_extent()


def assert_legible(figure):
    found = list(texts(figure))
    width, height = figure.bbox.size
    assert len(found) > 3
    assert not any(text.get_parse_math() for text, _ in found if "$" in text.get_text())
    for text, box in found:
        assert min(box.x0, box.y0, width - box.x1, height - box.y1) >= -1, text
    x0, y0, x1, y1 = np.array([box.extents for _, box in found]).T
    across = np.minimum(x1, x1[:, None]) - np.maximum(x0, x0[:, None])
    down = np.minimum(y1, y1[:, None]) - np.maximum(y0, y0[:, None])
    over = np.argwhere(np.triu((across > 1) & (down > 1), 1))
    assert not over.size, [found[n][0] for n in over[0]]


FIGURES = {
    "heat": lambda w, names, title: plot.heat(w[0], names, title=title),
    "row": lambda w, names, title: plot.row(w[0], -1, names, title=title),
    "received": lambda w, names, title: plot.received(w, names, title=title),
}


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("n", [1, 10, 64, 2000])
@pytest.mark.parametrize("figure", FIGURES)
def test_names_lie_apart_and_within(figure, n, tokens):
    if n > 100 and tokens == "short":
        n = 32768
    w = some((3,), n)
    assert_legible(FIGURES[figure](w, TOKENS[tokens](n), "a title " * (1 if n < 50 else 40)))


@pytest.mark.parametrize("lead", [(), (1,), (5,), (40,), (4, 32), (30, 9)])
def test_heads_of_any_number_lie_apart_and_within(lead):
    w = some(lead, 10)
    assert_legible(plot.profile(w, title="$layer$ 2"))
    if len(lead) < 2:
        assert_legible(plot.heads(w, title="$layer$ 2"))


@pytest.mark.parametrize("draw", [plot.heads, plot.profile])
def test_heads_of_long_texts_lie_apart_and_within(draw):
    assert_legible(draw(some((2, 3), 2000)))


@pytest.mark.parametrize("shape", [(28, 26), (4, 900), (300, 1)])
def test_crossed_texts_lie_apart_and_within(shape):
    w, (queries, keys) = some((2,), *shape), shape
    both = (TOKENS["hostile"](queries), TOKENS["long"](keys))
    for figure in (plot.heat(w[0], both), plot.row(w[0], -1, both), plot.received(w, both), plot.heads(w)):
        assert_legible(figure)


def test_a_pair_of_lists_names_queries_and_keys():
    w = some((2,), 3, 2)
    axes = plot.heat(w[0], (list("abc"), ["x", "y"])).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a", "b", "c"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["x", "y"]
    figure = plot.row(w[0], 1, (list("abc"), ["x", "y"]))
    assert "query 1, “b”" in figure.get_suptitle()
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["x  0", "y  1"]
    assert [text.get_text() for text in plot.heat(w[0], ["x", "y"]).axes[0].get_xticklabels()] == ["x", "y"]


def test_names_are_cut_between_letters_and_spelled_where_no_font_has_them():
    shown = lettering.named(HOSTILE).texts
    assert shown[:4] == ["$x^2$", "$", "a_b_c", "\\frac{1}{2}"]
    long = lettering.named(["e\u0301" * 60]).texts[0]
    assert long.endswith("e\u0301…")
    assert len(long) < 60
    assert lettering.named(["\U0010fffe"]).texts == ["\\U0010fffe"]
    assert lettering.named(["a\U000f0000"]).texts == ["a\\U000f0000"]
