"""The model against its definition, against torch, and against itself read token by token."""

import math
import subprocess
import sys
import time
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_training import files, network
from model_training.gates import HELD_OUT
from torch.nn import functional

from clearhead.errors import InputError
from clearhead.model import Decoding, HeadScores, Model, definition, head_scores, load
from clearhead.model.generate import decode_stream, generate_tokens, sample_token
from clearhead.model.parameters import Parameters
from clearhead.model.tokens import START

TEXT = HELD_OUT.read_text("utf-8")
TOKENS = load().tokenizer.encode(TEXT)[:256]


def small(seed: int, layers: int = 2, heads: int = 2, dim: int = 8) -> Model:
    """A model of random numbers, larger than trained ones."""
    torch.manual_seed(seed)
    sizes = network.Sizes(300, 32, dim, heads, layers, 3 * dim)
    made = network.Network(sizes)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_()
    return files.as_shipped(made, sizes, [(1 + i, 2 + i) for i in range(43)])


def in_torch(held: Parameters) -> network.Network:
    """The same parameters in torch."""
    vocabulary, dim = held.embedding.shape
    hidden = held.layers[0].up.shape[1]
    made = network.Network(network.Sizes(vocabulary, held.context, dim, held.heads, len(held.layers), hidden))
    with torch.no_grad():
        made.embedding.copy_(torch.tensor(held.embedding))
        for layer, own in zip(made.layers, held.layers, strict=True):
            layer.inputs.copy_(torch.tensor(np.concatenate([own.query.T, own.key.T, own.value.T])))
            for name in ("output", "up", "down"):
                getattr(layer, name).copy_(torch.tensor(getattr(own, name).T.copy()))
    return made


@settings(max_examples=30)
@given(seed=st.integers(0, 999), layers=st.integers(1, 3), heads=st.sampled_from([1, 2, 4]), data=st.data())
def test_random_models_are_their_definition(seed, layers, heads, data):
    model = small(seed, layers, heads)
    tokens = data.draw(st.lists(st.integers(0, 299), min_size=1, max_size=32))
    expected = definition.logits(model.parameters, tokens)
    np.testing.assert_allclose(model.logits(tokens), expected, rtol=0, atol=1e-3 * np.abs(expected).max())


def test_the_shipped_model_is_its_definition():
    expected = definition.logits(load().parameters, TOKENS)
    np.testing.assert_allclose(load().logits(TOKENS), expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize("attention", ["torch's", "clearhead's"])
def test_the_shipped_model_is_the_network_that_was_trained(monkeypatch, attention):
    if attention == "torch's":
        monkeypatch.setattr(network, "scaled_dot_product_attention", functional.scaled_dot_product_attention)
    with torch.no_grad():
        logits = in_torch(load().parameters)(torch.tensor([TOKENS]))[0].numpy()
    np.testing.assert_allclose(load().logits(TOKENS), logits, rtol=0, atol=2e-4)


def test_what_is_kept_is_what_was_computed():
    model = load()
    done, held = model.forward(TOKENS[:60]), model.parameters
    assert done.tokens == tuple(TOKENS[:60])
    stream = done.embedded
    np.testing.assert_array_equal(stream, held.embedding[TOKENS[:60]])
    for layer, own in zip(done.layers, held.layers, strict=True):
        np.testing.assert_array_equal(layer.entering, stream)
        for before, after in ((stream, layer.normed), (layer.between, layer.normed_between)):
            np.testing.assert_allclose(after, definition.rms_norm(before.astype(np.float64)), atol=1e-5)
        for turned, matrix in ((layer.q, own.query), (layer.k, own.key)):
            expected = definition.rotary(definition.split_heads(layer.normed @ matrix, held.heads))
            np.testing.assert_allclose(turned, expected, atol=1e-4)
        np.testing.assert_allclose(layer.v, definition.split_heads(layer.normed @ own.value, held.heads), atol=1e-4)
        assert layer.scale == 32**-0.5
        weights = np.asarray(layer.weights)
        np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-5)
        assert not np.triu(weights, 1).any()
        np.testing.assert_allclose(weights @ layer.v, layer.attended, atol=1e-4)
        side_by_side = np.concatenate(list(layer.attended), axis=-1)
        np.testing.assert_allclose(side_by_side @ own.output, layer.attention, atol=1e-4)
        np.testing.assert_array_equal(layer.between, stream + layer.attention)
        np.testing.assert_allclose(layer.hidden, definition.gelu(layer.normed_between @ own.up), atol=1e-4)
        np.testing.assert_allclose(layer.mlp, layer.hidden @ own.down, atol=1e-4)
        np.testing.assert_array_equal(layer.leaving, layer.between + layer.mlp)
        stream = layer.leaving
    np.testing.assert_array_equal(done.logits, model.unembedded(stream))
    np.testing.assert_array_equal(done.logits, model.logits(TOKENS[:60]))
    np.testing.assert_allclose(done.normed @ held.embedding.T, done.logits, atol=1e-3)


@settings(max_examples=20)
@given(cuts=st.sets(st.integers(1, 255)))
def test_reading_on_gives_the_bits_of_reading_all(cuts):
    model, reading = load(), Decoding(load())
    whole, borders = model.logits(TOKENS), [0, *sorted(cuts), 256]
    for first, stop in pairwise(borders):
        np.testing.assert_array_equal(reading.read(TOKENS[first:stop]), whole[stop - 1])
    assert reading.length == 256
    with pytest.raises(InputError, match="1 tokens after 256"):
        reading.read([5])


def test_a_beginning_has_the_bits_it_has_in_the_whole():
    whole = load().logits(TOKENS)
    for count in (1, 2, 3, 4, 5, 17, 64, 255):
        np.testing.assert_array_equal(load().logits(TOKENS[:count]), whole[:count])


def test_wrong_tokens_are_refused():
    for tokens, said in (([], "needs at least one"), ([0] * 257, "257 tokens"), ([0, 2048], "2048"), ([0, -1], "-1")):
        with pytest.raises(InputError, match=said):
            load().forward(tokens)


def test_the_loss_is_that_of_torch():
    model = load()
    found = model.loss(TEXT[:3000])
    tokens = model.tokenizer.encode(TEXT[:3000])[1:]
    nats = []
    with torch.no_grad():
        for i in range(0, len(tokens), 256):
            part = torch.tensor([START, *tokens[i : i + 256]])
            logits = in_torch(model.parameters)(part[None, :-1])[0]
            nats += functional.cross_entropy(logits, part[1:], reduction="none").tolist()
    assert found.tokens == tuple(tokens)
    np.testing.assert_allclose(found.nats, nats, atol=1e-3)
    assert found.mean == pytest.approx(np.mean(nats), abs=1e-4)
    assert found.perplexity == pytest.approx(math.exp(np.mean(nats)), rel=1e-3)
    assert found.bits_per_character == pytest.approx(sum(nats) / math.log(2) / 3000, rel=1e-4)
    assert found.uniform == pytest.approx(math.log(2048))
    with pytest.raises(InputError, match="empty text"):
        model.loss("")


def test_head_scores_are_means_of_weights():
    """Against the plainest way to compute them, on a text of one part."""
    model = load()
    text = TEXT[:600]
    tokens = model.tokenizer.encode(text)
    found, names = head_scores(model, text), model.tokenizer.names(tokens)
    signs = [j for j, name in enumerate(names) if name.strip() in {*".,;:!?\"'-", "--", '."', ',"', '?"', '!"', ".--"}]
    for layer, done in enumerate(model.forward(tokens).layers):
        w = np.asarray(done.weights, np.float64)
        rows = range(32, len(tokens))
        for head in range(4):
            expected = HeadScores(
                itself=np.mean([w[head, i, i] for i in rows]),
                previous=np.mean([w[head, i, i - 1] for i in rows]),
                sink=np.mean([w[head, i, 0] for i in rows]),
                punctuation=np.mean([sum(w[head, i, j] for j in signs) for i in rows]),
                induction=0,
                signs=0,
            )
            for name in ("itself", "previous", "sink", "punctuation"):
                assert getattr(found, name)[layer, head] == pytest.approx(getattr(expected, name), abs=1e-6), name
    assert found.signs == pytest.approx(np.mean([sum(j <= i for j in signs) / (i + 1) for i in rows]))
    with pytest.raises(InputError, match="too few"):
        head_scores(model, "A short text.")


def test_an_induction_head_looks_behind_the_first_occurrence():
    model = load()
    scores = head_scores(model, TEXT[:1000]).induction
    layer, head = np.unravel_index(scores.argmax(), scores.shape)
    span = np.random.default_rng(7).integers(257, 2048, 60)
    w = model.forward([START, *span, *span]).layers[layer].weights
    on_next = [w[int(head), 61 + j, 2 + j] for j in range(10, 59)]
    assert np.mean(on_next) == pytest.approx(scores.max(), abs=0.1)


def test_a_seed_makes_a_reply():
    model = load()
    reply = model.generate("The captain", 30, seed=5)
    assert reply == model.generate("The captain", 30, seed=5)
    assert len({model.generate("The captain", 30, seed=seed) for seed in range(4)}) == 4
    greedy = model.generate("The captain", 5, temperature=0)
    tokens = model.tokenizer.encode("The captain")
    for _ in range(5):
        tokens.append(int(definition.logits(model.parameters, tokens)[-1].argmax()))
    assert greedy == model.tokenizer.decode(tokens)[len("The captain") :]


def test_a_reply_goes_on_beyond_the_context():
    model, read = small(3), [START, *range(1, 60)]
    chosen = generate_tokens(model, read, lambda logits: int(logits.argmax()))
    read = [START, *read[-16:]]
    for _ in range(80):
        token = next(chosen)
        assert token == model.logits(read)[-1].argmax()
        read = [*read, token] if len(read) < 32 else [START, *read[-15:], token]


@given(st.text(max_size=20), st.data())
def test_characters_come_when_they_are_whole(text, data):
    held = text.encode()
    cuts = [0, *sorted(data.draw(st.sets(st.integers(0, len(held))))), len(held)]
    assert "".join(decode_stream(held[a:b] for a, b in pairwise(cuts))) == text


@given(st.lists(st.floats(-20, 20, width=32), min_size=3, max_size=30), st.floats(0.01, 1), st.integers(0, 99))
def test_tokens_are_drawn_from_the_nucleus(logits, top_p, seed):
    scores = np.array(logits, np.float32)
    token = sample_token(scores, 1.0, top_p, np.random.default_rng(seed))
    chances = np.exp(scores[1:].astype(np.float64) - scores[1:].max())
    chances /= chances.sum()
    likelier = chances[chances > chances[token - 1]].sum()
    assert token != START
    assert likelier < top_p + 1e-9


def test_chances_are_those_of_the_softmax():
    random, logits = np.random.default_rng(0), np.log(np.array([1e-9, 0.5, 0.3, 0.2], np.float32))
    drawn_ones = np.bincount([sample_token(logits, 1.0, 1.0, random) for _ in range(4000)], minlength=4) / 4000
    np.testing.assert_allclose(drawn_ones, [0, 0.5, 0.3, 0.2], atol=0.03)
    hotter = np.bincount([sample_token(logits, 0.5, 1.0, random) for _ in range(4000)], minlength=4) / 4000
    np.testing.assert_allclose(hotter, np.array([0, 0.25, 0.09, 0.04]) / 0.38, atol=0.03)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"tokens": 0}, "tokens=0"), ({"temperature": -1}, "=-1"), ({"top_p": 0}, "top_p=0"), ({"seed": -1}, "seed=-1")],
)
def test_what_cannot_be_drawn_with_is_refused(wrong, said):
    with pytest.raises(InputError, match=said):
        load().generate("The sea", **wrong)


def test_clearhead_does_not_load_the_model():
    code = "import sys, clearhead; print([name for name in sys.modules if name.startswith('clearhead.model')])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


def test_a_reply_takes_little_of_a_processor():
    model = load()
    model.generate("The river", 2)
    began = time.process_time()
    model.generate("The river", 20)
    assert time.process_time() - began < 1.0
