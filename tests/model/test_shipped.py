"""The files that ship: as large, as good and as described as docs/model.md says."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from model_training import files, gates, monitor, pictures
from safetensors.numpy import load_file

from clearhead.model import head_scores, load

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "clearhead" / "model"
PAGE = (ROOT / "docs" / "model.md").read_text("utf-8")
TEXT = gates.HELD_OUT.read_text("utf-8")
RECORDED = json.loads(gates.RECORDED.read_text("utf-8"))


@pytest.fixture(scope="module")
def figures() -> gates.Figures:
    return gates.measure(load(), sum((SHIPPED / name).stat().st_size for name in files.NAMES))


def test_the_gates_hold(figures):
    assert figures.passed, str(figures)


def test_loss_and_heads_are_as_recorded(figures):
    """Bits differ between processors, for matrix products are numpy's; the figures must not."""
    assert figures.loss.mean == pytest.approx(RECORDED["loss"], abs=1e-3)
    assert figures.heads.signs == pytest.approx(RECORDED["signs"], abs=1e-4)
    for name in ("itself", "previous", "sink", "punctuation", "induction"):
        np.testing.assert_allclose(getattr(figures.heads, name), RECORDED[name], atol=1e-3, err_msg=name)


def test_the_page_tells_the_figures(figures):
    told = re.sub(r"\s+", " ", PAGE)
    for name in files.NAMES:
        assert hashlib.sha256((SHIPPED / name).read_bytes()).hexdigest() in told
    assert f"{figures.loss.mean:.2f} nats a token" in told
    assert f"perplexity {figures.loss.perplexity:.1f}" in told
    assert f"{figures.loss.bits_per_character:.2f} bits a character" in told
    assert f"{figures.size / 1e6:.2f} MB" in told


def test_the_table_ends_with_what_ships(figures):
    last = list(monitor.read(ROOT / "docs" / "pictures" / monitor.TABLE))[-1]
    assert last.held_out == pytest.approx(figures.loss.mean, abs=1e-3)
    assert last.previous == pytest.approx(figures.heads.previous.max(), abs=1e-3)
    assert last.sink == pytest.approx(figures.heads.sink.max(), abs=1e-3)


def test_a_worse_model_fails_the_gates(figures):
    assert not gates.Figures(3_000_001, figures.loss, figures.heads).passed
    untrained = gates.Figures(0, figures.loss, head_scores(untold(), TEXT[:2000]))
    assert not untrained.passed


def untold():
    """The shipped model without its second layer, whose previous-token head the induction heads need."""
    from dataclasses import replace

    held = load().parameters
    return replace(load(), parameters=replace(held, layers=held.layers[:1] + held.layers[3:]))


def test_every_number_is_finite_and_every_row_used():
    held = load_file(SHIPPED / "tiny.safetensors")
    assert {x.dtype for name, x in held.items() if not name.endswith(".scales")} == {np.dtype(np.int8)}
    for name, x in held.items():
        assert np.isfinite(x).all()
        assert (x.any(axis=-1) if x.ndim == 2 else x > 0).all(), name


def test_every_text_has_its_notice():
    notice = (SHIPPED / "NOTICE.md").read_text("utf-8")
    for word in ("Austen", "Moby-Dick", "State of the Union", "eBible.org", "janeaustenr", "PDDL"):
        assert word in notice


def test_the_pictures_can_be_drawn_again(tmp_path):
    lines = list(monitor.read(ROOT / "docs" / "pictures" / monitor.TABLE))
    pictures.draw(load(), lines, tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "model_heads.png", "model_induction.png", "model_training.png",
    ]  # fmt: skip
