"""Figures show the weights that they say they show, label what they must, and are saved whole or not at all."""

import re
import warnings
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm, PowerNorm, to_hex

from clearhead import FileError, InputError, ShapeError, causal, full, plot, weights, window
from clearhead.attention_weights import figures

KINDS = ["light", "dark"]


def some(heads=3, n=20, seed=0, **rules):
    q, k = np.random.default_rng(seed).standard_normal((2, heads, n, 8))
    return weights(q, k, **rules)


def names(n=20):
    return [f"t{i}" for i in range(n)]


@pytest.mark.parametrize("theme", KINDS)
@pytest.mark.parametrize("rules", [{}, {"mask": window(4)}])
def test_a_heat_map_is_the_weights_and_blank_where_hidden(theme, rules):
    w = some(**rules)[1]
    figure = plot.heat(w, names(), theme=theme)
    shown = figure.axes[0].images[0].get_array()
    np.testing.assert_array_equal(shown.filled(0), np.asarray(w))
    np.testing.assert_array_equal(np.ma.getmaskarray(shown), np.asarray(w) == 0)
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == names()
    assert figure.get_facecolor() == pytest.approx(
        [*(int(plot.COLOURS[theme].paper[i : i + 2], 16) / 255 for i in (1, 3, 5)), 1]
    )


def test_a_part_of_a_heat_map_keeps_its_numbers():
    w = some()[0]
    figure = plot.heat(w, rows=slice(5, 15), columns=slice(2, 9))
    image = figure.axes[0].images[0]
    np.testing.assert_array_equal(image.get_array().filled(0), np.asarray(w)[5:15, 2:9])
    assert tuple(image.get_extent()) == (1.5, 8.5, 14.5, 4.5)


def test_long_weights_are_pooled_and_the_caption_says_so():
    w = some(1, 1300)[0]
    figure = plot.heat(w)
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array().filled(0), w.map(size=512))
    assert figure.axes[0].get_title(loc="left") == "pooled: each pixel is the largest of 2.54 × 2.54 weights"
    assert plot.heat(some()[0]).axes[0].get_title(loc="left") == ""


@pytest.mark.parametrize("title", ["", "layer 18"])
@pytest.mark.parametrize("n", [20, 96, 97, 700])
def test_a_sheet_of_heads_says_what_is_pooled_and_which_axis_is_which(n, title):
    figure = plot.heads(some(2, n), title=title)
    said = figure.get_suptitle()
    assert said.startswith(title or "heads")
    assert ("pooled: each pixel is the largest of" in said) == (n > 96)
    assert figure.get_supxlabel() == "key (attended to)"
    assert figure.get_supylabel() == "query (attending)"


@pytest.mark.parametrize("title", ["", "head 0"])
def test_every_figure_names_its_axes_whatever_its_title(title):
    w = some(2)
    for figure in (
        plot.heat(w[0], title=title),
        plot.row(w[0], 0, title=title),
        plot.received(w, title=title),
        plot.profile(w, title=title),
    ):
        assert figure.axes[0].get_ylabel()
        assert [axes for axes in figure.axes if axes.get_xlabel()]
    assert plot.received(w[0], title=title).axes[0].get_title(loc="left").endswith("sum over queries")


def test_colours_go_with_the_root_until_most_would_be_pale():
    short, uniform, sink = some()[0], weights(np.zeros((2000, 1)), np.zeros((2000, 1))), np.zeros((2000, 2))
    sink[0] = [100, 0]
    both = np.tile([1.0, 0], (2000, 1))
    for w, logarithmic in ((short, False), (uniform, True), (weights(both, sink, scale=0.1), True)):
        bar, image = (lambda axes: (axes[1], axes[0].images[0]))(plot.heat(w).axes)
        assert isinstance(image.norm, LogNorm if logarithmic else PowerNorm)
        assert bar.get_ylabel() == (
            "weight, on a log scale; less than 5e-06 in one colour" if logarithmic else "weight"
        )
        seen = image.get_array().compressed()
        assert image.norm.vmax == seen.max()
        assert 0.1 < np.median(np.asarray(image.norm(seen))) < 0.8
    one_hot = plot.heat(weights(100 * np.eye(300), 100 * np.eye(300), scale=0.01)).axes[0].images[0]
    assert np.median(np.asarray(one_hot.norm(one_hot.get_array().compressed()))) <= 0  # what is nothing stays pale


def test_the_rest_of_a_row_flattens_no_bar():
    w = weights(np.zeros((2000, 1)), np.zeros((2000, 1)))
    figure = plot.row(w, -1)
    axes = figure.axes[0]
    named = [patch.get_width() for patch in axes.patches[:-1]]  # type: ignore[attr-defined]
    assert min(named) > 0.5 * axes.get_xlim()[1]
    assert axes.patches[-1].get_width() == pytest.approx(0.98)  # type: ignore[attr-defined]
    assert axes.texts[-1].get_text() == "0.9800, longer than the scale"
    assert axes.texts[-1].xy[0] == axes.get_xlim()[1]  # type: ignore[attr-defined]
    assert [text.get_text() for text in axes.get_yticklabels()][:2] == ["0", "1"]
    short = plot.row(some(1, 60)[0], -1).axes[0]
    assert "longer" not in " ".join(text.get_text() for text in short.texts)


def test_itself_is_coloured_where_queries_and_keys_are_the_same_items():
    own, other = plot.COLOURS["light"].chosen, plot.COLOURS["light"].bar
    x = np.zeros((5, 1))
    for w, colours, said in (
        (weights(x, x), [other] * 3 + [own] + [other], True),
        (weights(x[:4], x, mask=full()), [other] * 5, False),
        (weights(np.eye(60), np.eye(60), mask=causal() & ~window(0, 0)), [other] * 40, False),
    ):
        axes = plot.row(w, 3 if len(w) < 60 else -1).axes[0]
        assert [to_hex(patch.get_facecolor()) for patch in axes.patches][: len(colours)] == colours
        assert ("itself in the other colour" in axes.get_title(loc="left")) == said


def test_received_mass_has_a_scale_to_read():
    even = plot.received(weights(np.zeros((20, 1)), np.zeros((20, 1)))).axes[0]
    assert even.get_yscale() == "linear"
    assert even.get_ylim()[0] == 0
    steep = plot.received(some(3, 300))
    steep.canvas.draw()
    assert steep.axes[0].get_yscale() == "log"
    assert "on a log scale" in steep.axes[0].get_title(loc="left")
    low, high = steep.axes[0].get_ylim()
    ticks = [text.get_text() for text in steep.axes[0].get_yticklabels()]
    shown = [tick for tick in ticks if low <= float(tick) <= high]
    assert len(shown) >= 2
    assert {"0.1", "1"} <= {*shown}


def test_many_names_do_not_overlap():
    figure = plot.heat(some(1, 64)[0], names(64))
    figure.draw_without_rendering()
    for axis, side in ((figure.axes[0].xaxis, "x"), (figure.axes[0].yaxis, "y")):
        boxes = [text.get_window_extent() for text in axis.get_ticklabels()]
        edges = sorted((getattr(box, f"{side}0"), getattr(box, f"{side}1")) for box in boxes)
        assert all(left[1] <= right[0] + 1 for left, right in pairwise(edges))


def test_names_show_their_control_characters():
    figure = plot.heat(some(1, 6)[0], ["\n", "\t", " the", " ", "a\x1b[1m", "$x$"])
    shown = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert shown == ["\\n", "\\t", " the", "␣", "a\\x1b[1m", r"\$x\$"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot.picture_of(figure)


@pytest.mark.parametrize("n", [20, 300])
def test_bars_of_a_row_account_for_all_its_weight(n):
    w = some(1, n)[0]
    figure = plot.row(w, -1, names(n))
    bars = [patch.get_width() for patch in figure.axes[0].patches]  # type: ignore[attr-defined]
    assert sum(bars) == pytest.approx(1)
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert len(labels) == len(bars) == min(n, figures.MOST_BARS + 1)
    values = w.row(-1)
    for label, bar in zip(labels, bars, strict=True):
        if "other" in label:
            assert f"{n - figures.MOST_BARS}" in label
        else:
            assert bar == values[int(label.split()[-1])]
            assert label.split()[0] == f"t{label.split()[-1]}"


def test_profiles_and_received_mass_are_the_summary():
    w = some(4)
    found = w.summary("effective", "distance", "received_sum")
    both = plot.profile(w).axes
    for axes, name in zip(both, ("effective", "distance"), strict=True):
        np.testing.assert_allclose(axes.lines[1].get_ydata(), found[name].mean(axis=-1))
        bands = next(part for part in axes.collections if isinstance(part, LineCollection))
        low = np.quantile(found[name], 0.25, axis=-1)
        np.testing.assert_allclose([line[0][1] for line in bands.get_segments()], low)
    lines = plot.received(w).axes[0].lines
    np.testing.assert_allclose([line.get_ydata() for line in lines[:-1]], found.received_sum)
    np.testing.assert_allclose(lines[-1].get_ydata(), found.received_sum.mean(axis=0))


def test_a_sheet_shows_every_head_on_one_scale():
    w = some(7)
    figure = plot.heads(w)
    shown = [axes for axes in figure.axes if axes.get_visible() and axes.images and axes.get_title()]
    assert len(shown) == 7
    assert len({axes.images[0].norm.vmax for axes in shown}) == 1
    np.testing.assert_array_equal(shown[3].images[0].get_array().filled(0), np.asarray(w[3]))


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_figures_are_saved_whole_and_alike(tmp_path, kind):
    for name in ("a", "b"):
        plot.save(plot.heat(some()[0], ["$x$", "_", "\n", "ü" * 50, *names(16)]), tmp_path / f"{name}.{kind}")
    first, second = ((tmp_path / f"{name}.{kind}").read_bytes() for name in ("a", "b"))
    assert first.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[kind])
    assert first == second or kind == "svg"  # SVG's names of parts are drawn by chance
    with pytest.raises(FileError, match="exists"):
        plot.save(plot.heat(some()[0]), tmp_path / f"a.{kind}", force=False)


def test_what_cannot_be_drawn_is_told(tmp_path):
    w = some()
    with pytest.raises(ShapeError, match=r"\(3, 20, 20\)"):
        plot.heat(w)
    for tokens in ("a" * 20, 5):
        with pytest.raises(InputError, match=f"tokens={tokens!r} must be a list of names"):
            plot.heat(w[0], tokens)
    with pytest.raises(ShapeError, match="2 tokens do not match 20"):
        plot.heat(w[0], ["a", "b"])
    for query in (20, -21, "river", 1.5):
        with pytest.raises(InputError, match=rf"query {query!r} is not one of the 20: give 0 to 19, or -1 to -20"):
            plot.row(w[0], query)
    for draw in (plot.heat, plot.heads, plot.profile, plot.received, lambda x: plot.row(x, 0)):
        with pytest.raises(InputError, match="this is ndarray, not weights: make them with"):
            draw(np.eye(3))
        with pytest.raises(ShapeError, match=r"\(0, 0\) have nothing to draw"):
            draw(weights(np.zeros((0, 2)), np.zeros((0, 2))))
    for rows in (slice(5, 5), slice(0, 20, 2), 3):
        with pytest.raises(InputError, match=f"rows={re.escape(repr(rows))}"):
            plot.heat(w[0], rows=rows)
    with pytest.raises(InputError, match="sepia"):
        plot.heat(w[0], theme="sepia")
    with pytest.raises(FileError, match="gif"):
        plot.save(plot.heat(w[0]), tmp_path / "x.gif")
    with pytest.raises(FileError, match="nowhere"):
        plot.save(plot.heat(w[0]), tmp_path / "nowhere" / "x.png")
    assert list(tmp_path.iterdir()) == []


def test_notebooks_show_weights_unless_they_are_long():
    shown = some()._repr_html_()
    assert "data:image/png;base64," in shown
    assert shown.count("<tr>") == 4
    x = np.zeros((9000, 1), np.float32)
    long = weights(x, x, lse=np.zeros(9000, np.float32))
    assert "Too large" in long._repr_html_()
    assert long._repr_png_() is None
    assert some()._repr_png_().startswith(b"\x89PNG")


def test_plots_are_read_only_when_asked_for():
    import subprocess
    import sys

    code = "import sys, clearhead; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
