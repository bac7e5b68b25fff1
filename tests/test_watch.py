"""What a watch shows is what the model did, and nothing is shown where that cannot be shown."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import clearhead  # noqa: E402
from clearhead.errors import FileError, InputError, TrustError  # noqa: E402

SIZES = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}
CONFIGS = {
    "llama": transformers.LlamaConfig(**SIZES),
    "mistral": transformers.MistralConfig(**SIZES, sliding_window=8),
    "gemma2": transformers.Gemma2Config(
        **SIZES, head_dim=16, sliding_window=8, attn_logit_softcapping=5.0, query_pre_attn_scalar=16
    ),
    "gpt_oss": transformers.GptOssConfig(
        **SIZES, head_dim=16, sliding_window=8, num_local_experts=2, num_experts_per_tok=1
    ),
}


def model_of(name, attention="eager"):
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation=attention).eval()
    with torch.no_grad():
        for own, parameter in model.named_parameters():
            if "sinks" in own:
                parameter.normal_()
            elif "q_proj" in own or "k_proj" in own:
                parameter.mul_(6)
    return model


@pytest.fixture(scope="module", params=list(CONFIGS))
def model(request):
    return model_of(request.param)


@pytest.fixture
def tokens():
    torch.manual_seed(1)
    return torch.randint(3, 97, (2, 21))


def generate(model, tokens, mask=None, **options):
    mask = torch.ones_like(tokens) if mask is None else mask
    return model.generate(tokens, attention_mask=mask, max_new_tokens=6, do_sample=False, **options)


@torch.no_grad()
@pytest.mark.parametrize("left", [0, 7])
@pytest.mark.parametrize("cache", [{}, {"cache_implementation": "static", "disable_compile": True}])
def test_weights_of_a_generated_text_are_the_eager_ones(model, tokens, left, cache):
    mask = torch.ones_like(tokens)
    mask[1, :left] = 0
    with clearhead.watch(model) as seen:
        text = generate(model, tokens, mask, **cache)
    assert model.config._attn_implementation == "eager"
    assert seen.steps() == (21, 1, 1, 1, 1, 1)
    whole = torch.cat([mask, torch.ones(2, 5, dtype=torch.long)], 1)
    expected = model(text[:, :-1], attention_mask=whole, output_attentions=True).attentions
    for layer in range(3):
        for sequence, begin in ((0, 0), (1, left)):
            shown = seen.layer(layer, sequence=sequence)
            real = expected[layer][sequence, :, begin:, begin:].numpy()
            np.testing.assert_allclose(np.asarray(shown.weights), real, atol=2e-5)
            np.testing.assert_allclose(np.asarray(shown.head(3).weights), real[3], atol=2e-5)
            np.testing.assert_allclose(shown.head(1).step(2), real[1, 22 - begin : 23 - begin], atol=2e-5)


@torch.no_grad()
def test_some_layers_and_heads(tokens):
    model = model_of("llama")
    expected = model(tokens, output_attentions=True).attentions
    with clearhead.watch(model, layers=[2], heads=[3, 0]) as seen:
        model(tokens)
    assert seen.layers() == (2,)
    assert seen.layer(2).heads == (3, 0)
    for head in (0, 3):
        np.testing.assert_allclose(np.asarray(seen.layer(2).head(head).weights), expected[2][0, head], atol=2e-5)
    with clearhead.watch(model, heads=[1]) as one:
        model(tokens)
    np.testing.assert_allclose(np.asarray(one.layer(0).head(1).weights), expected[0][0, 1], atol=2e-5)
    with pytest.raises(InputError, match="head 1 of layer 2 was not watched"):
        seen.layer(2).head(1)
    with pytest.raises(InputError, match="layer 0 was not watched"):
        seen.layer(0)
    with pytest.raises(InputError, match="sequence 2 was not in the batch"):
        seen.layer(2, sequence=2)


@torch.no_grad()
def test_a_summary_covers_layers_heads_and_steps(model, tokens):
    with clearhead.watch(model) as seen:
        generate(model, tokens)
    summary = seen.summary("entropy", "first", "received_sum")
    assert summary.entropy.shape == summary.first.shape == summary.received_sum.shape == (3, 4, 26)
    dense = np.stack([np.asarray(seen.layer(n).weights) for n in range(3)])
    np.testing.assert_allclose(summary.first, dense[..., 0], atol=1e-6)
    np.testing.assert_allclose(summary.received_sum, dense.sum(-2), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_each_prompt_is_a_run(tokens):
    model = model_of("llama", "sdpa")
    with clearhead.watch(model) as seen:
        model(tokens)
        model(tokens[:, :9])
    assert len(seen.runs) == 2
    assert (seen.steps(0), seen.steps(), seen.layer(1).weights.shape) == ((21,), (9,), (4, 9, 9))
    assert model.config._attn_implementation == "sdpa"


@torch.no_grad()
def test_saved_and_loaded(model, tokens, tmp_path):
    path = tmp_path / "seen.safetensors"
    with clearhead.watch(model) as seen:
        generate(model, tokens)
    seen.save(path)
    again = clearhead.load_watch(path)
    assert again.steps() == seen.steps()
    for layer in range(3):
        a, b = (x.layer(layer, sequence=1).weights for x in (seen, again))
        assert np.array_equal(np.asarray(a), np.asarray(b))
    with pytest.raises(FileError, match="exists already"):
        seen.save(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(FileError, match="no saved watch"):
        clearhead.load_watch(path)


@torch.no_grad()
@pytest.mark.parametrize("what", ["query", "key", "value", "lse"])
def test_nothing_is_shown_of_a_record_that_is_wrong(model, tokens, what):
    with clearhead.watch(model) as seen:
        generate(model, tokens)
    seen.layer(1)
    record = seen.runs[-1][1]
    record.trusted = False
    record.array(what)[:] *= 1.01
    with pytest.raises(TrustError, match=r"layer 1, head \d, position \d+: .* Nothing of this layer is shown"):
        seen.layer(1)
    seen.layer(0)


@torch.no_grad()
def test_a_model_whose_own_attention_does_otherwise_is_not_trusted(tokens, monkeypatch):
    from transformers.models.gemma2 import modeling_gemma2

    model = model_of("gemma2")
    own = modeling_gemma2.eager_attention_forward

    def without_cap(*args, softcap=None, **kwargs):
        return own(*args, softcap=None, **kwargs)

    monkeypatch.setattr(modeling_gemma2, "eager_attention_forward", without_cap)
    with clearhead.watch(model) as seen:
        model(tokens)
    with pytest.raises(TrustError):
        seen.layer(0)


@torch.no_grad()
def test_memory_is_bounded_and_said(tokens):
    model = model_of("llama")
    with (
        pytest.raises(InputError, match=r"layer 0 and those after it would take .* MiB, more than memory=1000"),
        clearhead.watch(model, memory=1000),
    ):
        model(tokens)
    per_token = 4 * (4 * 16 + 2 * 2 * 16 + 4)
    with clearhead.watch(model, memory=3 * 2 * 24 * per_token + 10_000) as seen:
        model(tokens)
    own = sum(x.nbytes for record in seen.runs[0].values() for x in record.own)
    assert seen.nbytes - own == 3 * 2 * 21 * per_token
    assert model.config._attn_implementation == "eager"


@torch.no_grad()
def test_beams_are_refused(tokens):
    model = model_of("llama")
    with pytest.raises(InputError, match=r"beam search"), clearhead.watch(model):
        generate(model, tokens, num_beams=3)


@torch.no_grad()
def test_only_the_watched_model_is_recorded(tokens):
    model, other = model_of("llama"), model_of("mistral")
    other.set_attn_implementation("clearhead")
    with clearhead.watch(model) as seen:
        other(tokens)
    with pytest.raises(InputError, match="0 were: call the model inside"):
        seen.layer(0)
    ours = copy.deepcopy(model)
    ours.set_attn_implementation("clearhead")
    with clearhead.watch(ours) as seen:
        ours(tokens)
    assert seen.layer(0).weights.shape == (4, 21, 21)
    assert ours.config._attn_implementation == "clearhead"


def test_padding_behind_is_refused(tokens):
    model = model_of("llama")
    mask = torch.ones_like(tokens)
    mask[0, -3:] = 0
    with torch.no_grad(), pytest.raises(InputError, match="padding on the left alone"), clearhead.watch(model):
        model(tokens, attention_mask=mask)
