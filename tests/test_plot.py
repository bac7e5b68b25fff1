"""Figures show the weights that they say they show, label what they must, and are saved whole or not at all."""

import numpy as np
import pytest
from matplotlib.collections import LineCollection

from clearhead import FileError, InputError, ShapeError, plot, weights, window

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
    assert "largest" in figure.axes[0].get_title(loc="left")
    assert "largest" not in plot.heat(some()[0]).axes[0].get_title(loc="left")


@pytest.mark.parametrize("n", [20, 300])
def test_bars_of_a_row_account_for_all_its_weight(n):
    w = some(1, n)[0]
    figure = plot.row(w, -1, names(n))
    bars = [patch.get_width() for patch in figure.axes[0].patches]
    assert sum(bars) == pytest.approx(1)
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert len(labels) == len(bars) == min(n, plot.MOST_BARS + 1)
    values = w.row(-1)
    for label, bar in zip(labels, bars, strict=True):
        if "other" in label:
            assert f"{n - plot.MOST_BARS}" in label
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
    with pytest.raises(ShapeError, match="2 tokens for 20"):
        plot.heat(w[0], ["a", "b"])
    with pytest.raises(IndexError):
        plot.row(w[0], 20)
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
