"""The page of the small language model: each number is the model's, and what is said of it is so."""

import json
import math

import numpy as np
import pytest

from clearhead.cli import main
from clearhead.definition import textbook
from clearhead.errors import InputError
from clearhead.explain import html, latex, markdown, text
from clearhead.explain.block import ModelPage
from clearhead.model import load

TEXT = "The river was wide, and the river was"


def of(position: str = "-1", layer: int = 1, head: int = 2, words: str = TEXT) -> ModelPage:
    return ModelPage(words, position, layer, head)


def told(page: ModelPage) -> str:
    return " ".join(text.render(page.blocks(3), 100).split())


def test_the_heads_attention_is_the_models_own():
    page = of()
    done = load().forward(load().tokenizer.encode(TEXT))
    layer = done.layers[1]
    y = textbook.attention(*(x[2].astype(np.float64) for x in (layer.q, layer.k, layer.v)))
    np.testing.assert_allclose(page.explained.output, y[-1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(page.explained.output, layer.attended[2, -1], rtol=1e-4, atol=1e-4)


def test_the_last_guess_and_the_loss_are_the_models():
    page = of()
    logits = load().logits(load().tokenizer.encode(TEXT))[-1].astype(np.float64)
    chances = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    token, chance = page.guesses()[-1][0]
    assert chance == pytest.approx(chances.max(), rel=1e-5)
    assert load().tokenizer.names([int(chances.argmax())])[0] == token
    made, loss = json.loads(page.json()), load().loss(TEXT)
    assert made["mean"] == pytest.approx(loss.mean)
    assert made["perplexity"] == pytest.approx(math.exp(made["mean"]))
    assert made["uniform"] == pytest.approx(math.log(2048))
    assert sum(made["attention"]["weights"]) == pytest.approx(1)
    written = told(page)
    assert f"{loss.mean:.4f} nats a token" in written
    assert "What depth adds" in written
    assert "Which head is which" in written
    kinds = made["heads"]
    assert f"{kinds['induction']['share']:.4f}" in written
    assert [*kinds] == ["previous", "induction", "sink", "itself", "punctuation"]


def test_a_word_that_joins_to_itself_is_said_often_enough():
    assert "said" in told(ModelPage("Lord", "-1", 0, 0))


def test_every_format_and_the_command(capsys):
    for render in (markdown.render, latex.render, html.render):
        assert "The objective" in render(of().blocks(6))
    assert main(["explain", TEXT, "--model", "tiny", "--head", "2.1", "--position", "wide"]) in (0, 2)
    capsys.readouterr()
    assert main(["explain", TEXT, "--model", "tiny", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["head"] == [0, 0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "large"], "use tiny"),
        (["--model", "tiny", "--head", "9.0"], "give 0.0 to 3.3"),
        (["--model", "tiny", "--head", "x"], "LAYER.HEAD"),
        (["--model", "tiny", "--score", "alibi"], "--model"),
        (["--model", "tiny", "--steps", "cost"], "different pages"),
    ],
)
def test_what_the_model_has_not_is_refused(capsys, words, said):
    assert main(["explain", TEXT, *words]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1


def test_a_text_too_long_for_the_model_is_refused():
    with pytest.raises(InputError, match="give a shorter text"):
        _ = of(words="word " * 400).done
