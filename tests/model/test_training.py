"""The script that made the model: its first steps, its windows, the formats that it reads."""

import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from model_training import files, formats, gates, texts, training, windows
from model_training.network import Network, Sizes

from clearhead.model import Model, Tokenizer, definition, load
from clearhead.model import model as shipped
from clearhead.model.parameters import MATRICES, dequantize
from clearhead.model.tokens import START

TEXT = gates.HELD_OUT.read_text("utf-8")
FIRST_LOSSES = [7.662, 7.662, 7.6434, 7.6413, 7.5972, 7.582, 7.5308, 7.5132, 7.5068, 7.4909, 7.4794, 7.4799]


@pytest.fixture
def tokens():
    return np.array(load().tokenizer.encode(TEXT)[1:], np.int16)


def test_the_first_steps_lose_what_they_lost(tokens, monkeypatch):
    """Both phases of the recipe on another text: sizes, windows, repeats, optimisers and their rates."""
    monkeypatch.setattr(training, "PHASES", [replace(phase, steps=6) for phase in training.PHASES])
    monkeypatch.setattr(training, "SMOOTHING", 0.0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    losses = [step.loss for step in training.train(tokens, Sizes())]
    torch.set_num_threads(threads)
    np.testing.assert_allclose(losses, FIRST_LOSSES, atol=0.005)  # float32 and bfloat16 differ by 0.0001


def test_rates_rise_stay_and_fall():
    first, second = ([training.schedule(n, phase) for n in range(phase.steps)] for phase in training.PHASES)
    assert first[0] == second[0] == 1 / 50
    assert set(first[49:]) == {1.0}
    assert second[2000] == pytest.approx(0.515)
    assert np.all(np.diff(second[50:]) < 0)
    assert second[-1] == pytest.approx(0.03, abs=0.001)


def test_windows_begin_with_the_start_and_some_repeat(tokens):
    drawn = windows.Windows(tokens, 256, 2048, np.random.default_rng(0)).draw(2000, 0.15)
    assert drawn.shape == (2000, 257)
    assert (drawn[:, 0] == START).all()
    assert (drawn[:, 1:] > 0).all()
    periods = [period(row[1:]) for row in drawn]
    repeated = [p for p in periods if p]
    assert len(repeated) / 2000 == pytest.approx(0.15, abs=0.03)
    assert min(repeated) >= 8
    assert max(repeated) <= 128
    whole = " ".join(map(str, tokens))
    plain = [row for row, p in zip(drawn, periods, strict=True) if not p]
    assert all(" ".join(map(str, row[1:])) in whole for row in plain[:100])


def period(row):
    """How long the span is that is said again and again; 0 if none is."""
    return next((p for p in range(8, 129) if (row[p:] == row[:-p]).all()), 0)


def test_eight_bits_are_within_half_a_step():
    torch.manual_seed(0)
    network = Network(Sizes(300, 16, 8, 2, 1, 16))
    with torch.no_grad():
        network.layers[0].up[3] = 0
    held = files.quantised(network)
    assert set(held) == {
        f"{name}{end}" for name in ("embedding", *(f"0.{m}" for m in MATRICES)) for end in ("", ".scales")
    }
    for name, matrix in network.shipped():
        scale = held[name + ".scales"].astype(np.float64)[:, None]
        error = np.abs(held[name] * scale - matrix.detach().numpy())
        assert (error <= scale * 0.56 + 1e-7).all(), name  # the scale itself is rounded to 11 bits
    assert not held["0.up"][3].any()


def test_gains_of_norms_ship_within_matrices():
    """The network with gains, and the file's names read without them, before anything is rounded."""
    torch.manual_seed(1)
    network = Network(Sizes(300, 16, 8, 2, 2, 16))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_()
        expected = network(torch.tensor([[0, 5, 299, 7]]))[0].numpy()
        held = {name: matrix.numpy() for name, matrix in network.shipped()}
    ones = {name + ".scales": np.ones(len(matrix), np.float32) for name, matrix in held.items()}
    model = Model(dequantize(held | ones, heads=2, context=16), Tokenizer([]))
    np.testing.assert_allclose(model.logits([0, 5, 255, 7])[[0, 1]], expected[[0, 1]], rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(definition.logits(model.parameters, [0, 5, 299, 7]), expected, rtol=1e-3, atol=1e-2)


def test_files_are_read_as_they_were_written(tmp_path):
    network, sizes = Network(Sizes(300, 16, 8, 2, 1, 16)), Sizes(300, 16, 8, 2, 1, 16)
    merges = [(1 + i, 2 + i) for i in range(43)]
    files.write(tmp_path, network, sizes, merges)
    made, kept = shipped.read_model(tmp_path), files.as_shipped(network, sizes, merges)
    np.testing.assert_array_equal(made.logits([0, 5, 299]), kept.logits([0, 5, 299]))


def test_r_and_sword_files_are_read(tmp_path):
    def string(text):
        raw = text.encode()
        return struct.pack(">Ii", 0x40009, len(raw)) + raw

    value = b"X\n" + struct.pack(">III", 2, 0, 0) + struct.pack(">II", 16, 3) + string("a") + string("é b")
    value += struct.pack(">Ii", 9, -1)
    record = zlib.compress(value)
    other = zlib.compress(b"X\n" + struct.pack(">III", 2, 0, 0) + struct.pack(">IId", 14, 1, 0.5))
    content = b"".join(struct.pack(">I", len(part)) + part for part in (other, record, record))
    (tmp_path / "r.rdb").write_bytes(content)
    assert list(formats.r_string_vectors(tmp_path / "r.rdb")) == [["a", "é b", ""]] * 2

    books = [zlib.compress(f"book {n}".encode()) for n in range(3)]
    starts = np.cumsum([0, *map(len, books)])
    (tmp_path / "nt.bzz").write_bytes(b"".join(books))
    index = b"".join(struct.pack("<III", at, len(book), 6) for at, book in zip(starts, books, strict=False))
    (tmp_path / "nt.bzs").write_bytes(index)
    assert formats.sword_books(tmp_path, "nt") == ["book 0", "book 1", "book 2"]


def test_texts_become_plain_lines():
    assert texts._plain("“No_ne_” —  said\nhe , ‘naïve’…") == "\"None\" -- said he, 'naive'..."
    headings = ["CHAPTER IV", "Chapter 12", "CHAPTER 36. The Quarter-Deck.", "FINIS", "The End", "* * *", "", "EMMA"]
    assert [p for p in headings if not texts._is_heading(p)] == []
    assert not texts._is_heading("He bowed.")


def test_what_is_held_out_is_apart():
    paragraphs = [f"{n} " + "x" * 700 for n in range(2000)]
    trained, held = texts.split({"a": paragraphs})
    assert held["a"]
    kept = trained["a"].split("\n")
    apart = "".join(held["a"]).split("\n")
    assert not {p for p in kept if p} & {p for p in apart if p}
    assert sorted(p for p in kept + apart if p) == sorted(paragraphs)
    assert len(kept) / len(paragraphs) == pytest.approx(39 / 40, abs=0.01)
