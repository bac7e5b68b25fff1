"""Figures show the weights that they say they show, label what they must, and are saved whole or not at all."""

import re
import warnings
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm, Normalize, to_hex

from clearhead import FileError, InputError, ShapeError, causal, full, plot, weights, window
from clearhead.attention_weights.figures import maps
from clearhead.wording import percent

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


@pytest.mark.parametrize(
    ("n", "said"), [(20, ""), (1300, "of 2 or 3 × 2 or 3 weights"), (1024, "of 2 × 2 weights"), (512, "")]
)
def test_long_weights_are_pooled_and_the_caption_says_so(n, said):
    w = some(1, n)[0]
    figure = plot.heat(w)
    image = figure.axes[0].images[0]
    np.testing.assert_array_equal(image.get_array().filled(0), w.map(size=512))
    pooled = [line for line in figure.get_suptitle().splitlines() if "pooled" in line]
    assert pooled == [f"pooled: each pixel is the largest {said}"] * bool(said)
    assert figure.axes[0].get_xlim() == (-0.5, n - 0.5)


def test_pixels_lie_over_their_own_items():
    n, size = 700, 512
    w = weights(np.zeros((n, 1)), np.eye(1, n).T * 30.0, scale=1.0)  # all rest on the first key
    figure = plot.heat(w)
    axes = figure.axes[0]
    borders = np.arange(size + 1) * n // size - 0.5
    drawn = axes.images[0]
    np.testing.assert_array_equal(drawn._Ax, borders)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(drawn._Ay, borders)  # type: ignore[attr-defined]
    assert axes.get_ylim() == (n - 0.5, -0.5)


@pytest.mark.parametrize("title", ["", "layer 18"])
@pytest.mark.parametrize("n", [20, 128, 129, 700])
def test_a_sheet_of_heads_says_what_is_pooled_and_which_axis_is_which(n, title):
    figure = plot.heads(some(2, n), title=title)
    said = figure.get_suptitle()
    assert said.startswith(title or "heads")
    assert ("pooled: each pixel is the largest of" in said) == (n > 128)
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
    assert plot.received(w[0], title=title).get_suptitle().endswith("sum over queries; linear scale")


def test_colours_are_linear_for_few_weights_and_the_weights_are_printed():
    w = some(1, 16)[0]
    figure = plot.heat(w)
    norm = figure.axes[0].images[0].norm
    assert type(norm) is Normalize
    assert (norm.vmin, norm.vmax) == (0, np.asarray(w).max())
    assert "colours linear from 0 to 1;" in figure.get_suptitle()
    printed = [text.get_text() for text in figure.axes[0].texts]
    assert printed == [maps.hundredths(x) for x in np.asarray(w)[np.tril_indices(16)]]
    assert [maps.hundredths(x) for x in (1, 0.9999, 0.123, 0.0123, 1e-9, 0.0995, 0.09949)] == [
        *("100", ">99", "12", "1.2", "<0.1", "10", "9.9")
    ]


@pytest.mark.parametrize("n", [60, 700])
def test_a_log_scale_begins_where_a_hundredth_of_the_weight_lies_below_and_the_legend_says_how_much(n):
    w = some(1, n)[0]
    figure = plot.heat(w)
    image, bar = figure.axes[0].images[0], figure.axes[1]
    picture, mass = w.map(size=512), w.map(size=512, reduce="sum")
    floor = image.norm.vmin
    below = float(mass[picture < floor].sum() / mass.sum())
    assert isinstance(image.norm, LogNorm)
    assert image.norm.vmax == picture.max()
    assert floor in [float(f"{m}e-0{k}") for m in (1, 2, 5) for k in range(2, 8)]
    assert below <= 0.01
    assert mass[picture < 2.51 * floor].sum() / mass.sum() > 0.01 or floor > picture.max() / 251
    assert f"logarithmic from {floor:.3g} to 1; what is less holds {percent(below)} of the weight" in (
        figure.get_suptitle().replace("\n", " ")
    )
    ticks = [text.get_text() for text in bar.get_yticklabels()]
    assert ticks[0] == f"{floor:.3g}"
    assert ticks[-1] == "1"
    assert len(ticks) > 2


def test_a_log_scale_spans_two_decades_even_where_one_weight_a_row_is_all():
    norm = plot.heat(weights(100 * np.eye(300), 100 * np.eye(300), scale=0.01)).axes[0].images[0].norm
    assert (norm.vmin, norm.vmax) == (0.01, 1)


def test_weights_that_stand_out_are_ringed_in_the_longest_text():
    n, needle = 3000, (2222, 777)
    q, k = np.zeros((n, 2), np.float32), np.zeros((n, 2), np.float32)
    k[0, 0], q[:, 0] = 9, 1  # all rest on the first key
    q[needle[0], 1], k[needle[1], 1] = 4, 4
    w = weights(q, k, scale=1.0)
    figure = plot.heat(w)
    ring = figure.axes[0].lines[0]
    assert (ring.get_ydata()[0], ring.get_xdata()[0]) == needle
    assert len(figure.axes[0].lines) == 1
    weight = float(w[needle])
    assert f"1: query 2,222 → key 777 {weight:.4f}, {weight * 2223:,.0f} times an even share" in figure.get_suptitle()
    even = plot.heat(weights(np.zeros((700, 1)), np.zeros((700, 1))))
    assert not even.axes[0].lines
    assert "no weight stands out from an even share of its row" in even.get_suptitle()


def test_a_long_row_says_what_its_heaviest_keys_carry_and_shows_the_whole_text():
    w = some(1, 3000)[0]
    figure = plot.row(w, 2500, names(3000))
    bars, strip = figure.axes
    values = w.row(2500)
    heaviest = np.argsort(-values, kind="stable")[:20]
    assert [patch.get_width() for patch in bars.patches] == [*values[heaviest]]  # type: ignore[attr-defined]
    assert [text.get_text() for text in bars.get_yticklabels()] == [f"t{j}  {j:,}" for j in heaviest]
    own = float(values[heaviest].sum(dtype=np.float64))
    said = figure.get_suptitle().replace("\n", " ")
    assert f"these 20 keys carry {percent(own)}, the other 2,980 {percent(1 - own)} (499 of them nothing)" in said
    assert "line: the largest of each 11 or 12 keys, shade: their mean; logarithmic from" in said
    together = [text.get_text() for text in bars.child_axes[0].get_yticklabels()]
    assert together == [percent(x) for x in values[heaviest].astype(np.float64).cumsum()]
    mean, largest = (patch.get_data() for patch in strip.patches)  # type: ignore[attr-defined]
    borders = np.arange(257) * 3000 // 256
    parts = [values[a:b].astype(np.float64) for a, b in pairwise(borders)]
    np.testing.assert_array_equal(largest.edges, borders - 0.5)
    np.testing.assert_allclose(np.nan_to_num(largest.values), [part.max() for part in parts])
    np.testing.assert_allclose(mean.values, [max(part.mean(), strip.get_ylim()[0]) for part in parts])


def test_a_row_that_few_keys_carry_lists_few():
    keys = np.eye(3000, 1, dtype=np.float32) * 30
    figure = plot.row(weights(np.ones((3000, 1), np.float32), keys, scale=1.0), -1)
    assert len(figure.axes[0].patches) == 8
    nothing = plot.row(weights(np.eye(60), np.eye(60), mask=causal() & ~window(60)), -1)
    assert "it gives no key any weight" in nothing.get_suptitle()
    assert not nothing.axes[0].patches


def test_itself_is_coloured_where_queries_and_keys_are_the_same_items():
    own, other = plot.COLOURS["light"].chosen, plot.COLOURS["light"].bar
    x = np.zeros((5, 1))
    for w, colours, said in (
        (weights(x, x), [other] * 3 + [own] + [other], True),
        (weights(x[:4], x, mask=full()), [other] * 5, False),
        (weights(np.eye(60), np.eye(60), mask=causal() & ~window(0, 0)), [other] * 20, False),
    ):
        figure = plot.row(w, 3 if len(w) < 60 else -1)
        axes = figure.axes[0]
        assert [to_hex(patch.get_facecolor()) for patch in axes.patches][: len(colours)] == colours
        assert ("itself in the other colour" in figure.get_suptitle()) == said


@pytest.mark.parametrize("heads", [1, 3, 12])
def test_what_keys_receive_is_linear_and_a_first_key_that_would_flatten_it_is_told(heads):
    w = some(heads, 1000)
    steady = plot.received(w)
    k = np.zeros((heads, 1000, 1), np.float32)
    k[:, 0] = 12
    sink = weights(np.ones_like(k), k, scale=1.0)
    cut = plot.received(sink)
    for figure in (steady, cut):
        assert figure.axes[0].get_yscale() == "linear"
        assert figure.axes[0].get_ylim()[0] == 0
        assert "in each 3 or 4 keys" in figure.get_suptitle()
    assert "▲" not in steady.get_suptitle()
    mass = sink.summary("received_sum").received_sum.astype(np.float64)
    assert f"▲ key 0 receives {mass[0, 0]:.3g}" in cut.get_suptitle()
    assert cut.axes[0].get_ylim()[1] == pytest.approx(1.08 * mass[:, 1:].max())
    mean = next(line for line in cut.axes[0].lines if to_hex(line.get_color()) == plot.COLOURS["light"].bar)
    borders = np.arange(257) * 999 // 256
    expected = [mass[:, 1 + a : 1 + b].mean() for a, b in pairwise(borders)]
    np.testing.assert_allclose(mean.get_ydata(), expected)
    np.testing.assert_allclose(mean.get_xdata(), borders[:-1] + (np.diff(borders) + 1) / 2)


def test_names_show_their_control_characters():
    figure = plot.heat(some(1, 6)[0], ["\n", "\t", " the", " ", "a\x1b[1m", "$x$"])
    shown = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert shown == ["\\n", "\\t", " the", "␣", "a\\x1b[1m", "$x$"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot.picture_of(figure)


@pytest.mark.parametrize("n", [1, 20, 40])
def test_a_short_row_shows_every_key(n):
    w = some(1, n)[0]
    axes = plot.row(w, -1, names(n)).axes[0]
    bars = [patch.get_width() for patch in axes.patches]  # type: ignore[attr-defined]
    assert bars == [*w.row(-1)]
    assert [text.get_text() for text in axes.get_yticklabels()] == [f"t{j}  {j}" for j in range(n)]


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
