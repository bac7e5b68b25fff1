"""The text of a result says what it is, in a line, and leaves its numbers out."""

import numpy as np
import pytest

import clearhead
from clearhead import alibi, alignment, attend, causal, partial, weights
from clearhead.layers import SelfAttention
from clearhead.model import load
from clearhead.rules.masks import full

X = np.random.default_rng(0).standard_normal((4, 40, 16)).astype(np.float32)
DONE = attend(X, X, X, score=alibi(4))
MODEL = load()
PASS = SelfAttention.random(16, heads=4).forward(X[0])
TEXT = "The river was wide, and the boat was small."
RESULTS = {
    "attend": DONE,
    "backward": DONE.backward(X, rules=True),
    "direction": clearhead.Direction(X, X, X),
    "second": attend(X, X, X).second(X, None, clearhead.Direction(X, X, X)),
    "weights": DONE.weights,
    "summary": DONE.weights.summary(),
    "partial": partial(X, X, X, mask=causal(at=0)),
    "finished": partial(X, X, X, mask=causal(at=0)).finish(),
    "alignment": alignment(weights(X[0], X[0], mask=full())),
    "layer": PASS,
    "gradients of a layer": PASS.backward(X[0]),
    "model": MODEL,
    "forward": MODEL.forward(MODEL.tokenizer.encode(TEXT)),
    "loss": MODEL.loss(TEXT),
}


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_is_a_line_without_its_numbers(name):
    text = repr(RESULTS[name])
    assert text.startswith(type(RESULTS[name]).__name__)
    assert "array" not in text
    assert len(text) < 300
    assert "\n" not in text


def test_the_text_has_shapes():
    assert repr(DONE) == "Attended(output (4, 40, 16), lse (4, 40))"
