"""Nothing is shown that would not reproduce the model's own output: each mistake planted here ends in a TrustError."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import clearhead  # noqa: E402
from clearhead.adapters.torch import recording  # noqa: E402
from clearhead.adapters.torch.calls import Visibility  # noqa: E402
from clearhead.adapters.torch.reading import visible_of  # noqa: E402
from clearhead.adapters.transformers import interface  # noqa: E402
from clearhead.errors import TrustError  # noqa: E402
from tests.tiny_models import model_of  # noqa: E402

SHOWN = r"layer \d, head \d, position \d+: .* This layer is not shown"


@pytest.fixture
def tokens():
    torch.manual_seed(1)
    return torch.randint(3, 97, (2, 21))


def generated(model, tokens, **options):
    with torch.no_grad(), clearhead.watch(model) as seen:
        model.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=6, do_sample=False, **options)
    return seen


def described_wrongly(monkeypatch, change):
    """Let the description of each call be changed."""
    right = interface.described

    def described(*args):
        return change(right(*args))

    monkeypatch.setattr(interface, "described", described)


def other_keys(call):
    """Heads of queries that share the wrong heads of keys."""
    return replace(call, query=call.query.roll(1, 1))


MISTAKES = {
    "another scale": lambda call: replace(call, scale=call.scale * 1.05),
    "a cap": lambda call: replace(call, cap=1.0),
    "no mask": lambda call: replace(call, visibility=Visibility()),
    "a window": lambda call: replace(call, visibility=Visibility(causal="end", left=3)),
    "queries aligned at the start": lambda call: replace(call, visibility=Visibility(causal="start")),
    "the key heads of others": other_keys,
    "other keys": lambda call: replace(call, key=call.key.flip(2)),
    "other values": lambda call: replace(call, value=call.value * 1.01),
    "a sink": lambda call: replace(call, sink=torch.zeros(4)),
    "a bias": lambda call: replace(call, adds=(torch.arange(float(call.key.shape[2])) / 4 + torch.zeros(1, 1, 1, 1),)),
}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_calls_that_are_read_wrongly(mistake, attention, tokens, monkeypatch):
    model = model_of("llama", attention)
    described_wrongly(monkeypatch, MISTAKES[mistake])
    seen = generated(model, tokens)
    with pytest.raises(TrustError, match=SHOWN):
        seen.layer(0)
    with pytest.raises(TrustError):
        seen.summary()


@pytest.mark.parametrize("what", ["cap", "sink", "window"])
def test_what_a_model_has_beside_the_formula_is_not_forgotten(what, tokens, monkeypatch):
    kind = {"cap": "gemma2", "sink": "gpt_oss", "window": "mistral"}[what]

    def forget(call):
        if what == "window":
            return replace(call, visibility=Visibility(causal="end"))
        return replace(call, **{what: None})

    described_wrongly(monkeypatch, forget)
    seen = generated(model_of(kind), tokens)
    with pytest.raises(TrustError):
        seen.layer(0)


def test_a_mask_that_is_read_wrongly(tokens, monkeypatch):
    def one_less(call):
        visible, keys = visible_of(call)
        return replace(visible, high=np.maximum(visible.high - 1, 1)), keys

    monkeypatch.setattr(recording, "visible_of", one_less)
    seen = generated(model_of("llama", "sdpa"), tokens)
    with pytest.raises(TrustError):
        seen.layer(0)


def test_keys_that_changed_in_the_cache_without_a_trace(tokens, monkeypatch):
    """As if fingerprints did not tell: the old keys stay, though the model sees others."""
    model = model_of("llama", "sdpa")
    monkeypatch.setattr(recording, "fingerprints", lambda key: np.arange(key.shape[2])[None].repeat(len(key), 0))
    cache = transformers.DynamicCache(config=model.config)
    with torch.no_grad(), clearhead.watch(model) as seen:
        model(tokens[:, :20], past_key_values=cache)
        for layer in cache.layers:
            layer.keys[:, :, 3:12] = layer.keys[:, :, 3:12].flip(2)
        model(tokens[:, 20:], past_key_values=cache)
    with pytest.raises(TrustError, match="position 20"):
        seen.layer(0)


@torch.no_grad()
def test_keys_that_changed_in_the_cache_begin_anew(tokens):
    model = model_of("llama", "sdpa")
    cache = transformers.DynamicCache(config=model.config)
    with clearhead.watch(model) as seen:
        model(tokens[:, :20], past_key_values=cache)
        for layer in cache.layers:
            layer.keys[:, :, 3:12] = layer.keys[:, :, 3:12].flip(2)
        model(tokens[:, 20:], past_key_values=cache)
    assert [seen.steps(run) for run in range(len(seen.runs))] == [(20,), (1,)]
    assert seen.layer(0).weights.shape == (4, 1, 21)


@pytest.mark.parametrize("what", ["query", "key", "value"])
@pytest.mark.parametrize("kind", ["llama", "mistral", "gemma2", "gpt_oss"])
def test_arrays_that_changed_since(what, kind, tokens):
    seen = generated(model_of(kind), tokens)
    seen.layer(1)
    record = seen.runs[-1].records["decoder", 1]
    record.views.clear()
    for array in getattr(record, what).join():
        array *= 1.03
    with pytest.raises(TrustError, match=SHOWN):
        seen.layer(1)
    seen.layer(0)


def test_numbers_that_are_none(tokens):
    seen = generated(model_of("llama"), tokens)
    record = seen.runs[-1].records["decoder", 1]
    for array in record.value.join():
        array[:, 0, 0] = np.nan
    with pytest.raises(TrustError):
        seen.layer(1)


@torch.no_grad()
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_of_the_model_that_are_not_finite_are_told(number, tokens):
    model = model_of("llama")
    model.model.layers[1].self_attn.v_proj.weight[0, 0] = number
    with clearhead.watch(model) as seen:
        model(tokens)
    seen.layer(0)
    with pytest.raises(TrustError, match=r"layer 1, head \d, position \d+: .* not finite"):
        seen.layer(1)


@torch.no_grad()
@pytest.mark.parametrize(("attention", "trusted"), [("eager", 1e-7), ("sdpa", 1e-13)])
def test_models_of_float64_are_held_to_what_they_compute_in(attention, trusted, tokens):
    model = model_of("llama", attention).double()
    with clearhead.watch(model) as seen:
        model(tokens)
    record = seen.runs[0].records["decoder", 0]

    def scaled(factor):
        record.views.clear()
        for array in record.value.join():
            array *= factor

    scaled(1 + trusted)
    seen.layer(0)
    scaled(1 + trusted * 1e4)
    with pytest.raises(TrustError):
        seen.layer(0)


def test_nothing_of_a_layer_that_is_not_trusted_is_saved(tokens, tmp_path, monkeypatch):
    described_wrongly(monkeypatch, MISTAKES["another scale"])
    seen = generated(model_of("llama"), tokens)
    with pytest.raises(TrustError):
        seen.save(tmp_path / "seen.safetensors")
    assert not list(tmp_path.iterdir())


@torch.no_grad()
def test_a_layer_of_torchs_that_computes_otherwise_the_second_time(monkeypatch):
    """The weights of a fused layer come of a second computation, which must give the same output."""
    torch.manual_seed(0)
    model, x = torch.nn.MultiheadAttention(32, 4, batch_first=True).eval(), torch.randn(2, 9, 32)
    own = torch._native_multi_head_attention

    def other(*args):
        output, weights = own(*args)
        return output * 1.01, weights

    monkeypatch.setattr(torch, "_native_multi_head_attention", other)
    with pytest.raises(TrustError, match="computed a second time differs"), clearhead.watch(model):
        model(x, x, x, need_weights=False)
