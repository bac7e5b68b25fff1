"""What a watch shows is what the model did, and nothing is shown where that cannot be shown."""

import copy
from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import clearhead  # noqa: E402
from clearhead.errors import FileError, InputError, TrustError  # noqa: E402
from tests import tiny_models  # noqa: E402

KINDS = ["llama", "mistral", "gemma2", "gpt_oss"]
model_of = partial(tiny_models.model_of, layers=3)


@pytest.fixture(scope="module", params=KINDS)
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
    with pytest.raises(FileError, match="not a saved watch"):
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
    with pytest.raises(TrustError, match=r"layer 1, head \d, position \d+: .* This layer is not shown"):
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
        pytest.raises(InputError, match=r"layers 0 to 2 the watch would hold 65 KiB, more than memory=1000 \(1000 b"),
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
    with torch.no_grad(), pytest.raises(InputError, match="padding after or between tokens"), clearhead.watch(model):
        model(tokens, attention_mask=mask)


SMALL = {"vocab_size": 97, "hidden_size": 64}
OWN_ATTENTION = {
    "Falcon": transformers.FalconConfig(**SMALL, num_hidden_layers=2, num_attention_heads=4),
    "Bloom": transformers.BloomConfig(**SMALL, n_layer=2, n_head=4),
    "GPTNeo": transformers.GPTNeoConfig(
        **SMALL, num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]], max_position_embeddings=64
    ),
    "Mpt": transformers.MptConfig(vocab_size=97, d_model=64, n_layers=2, n_heads=4),
}


@pytest.mark.parametrize("name", OWN_ATTENTION)
def test_what_would_record_nothing_is_refused_on_entering(name):
    model = transformers.AutoModelForCausalLM.from_config(OWN_ATTENTION[name])
    before = model.config._attn_implementation
    with pytest.raises(InputError, match=f"{name}ForCausalLM computes attention by code of its own"):
        clearhead.watch(model).__enter__()
    assert model.config._attn_implementation == before


def test_encoders_and_strangers_are_refused_on_entering():
    small = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    bert = transformers.BertModel(transformers.BertConfig(vocab_size=97, **small))
    sight = transformers.ViTModel(transformers.ViTConfig(**small, image_size=16, patch_size=8))
    for model, kind in ((bert, "BertSelfAttention"), (sight, "ViT")):
        with pytest.raises(InputError, match=f"has no causal layers with numbers .* only {kind}"):
            clearhead.watch(model).__enter__()
    with pytest.raises(InputError, match="Linear is not a transformers model"):
        clearhead.watch(torch.nn.Linear(2, 2)).__enter__()


WRONG = [
    ({"layers": [99]}, r"has no layers \[99\] to watch: choose from 0 to 2"),
    ({"layers": [0, -1]}, r"has no layers \[-1\] to watch"),
    ({"layers": 1}, r"layers=1 must be numbers of layers: give a list, as layers=\[0, 5\]"),
    ({"layers": []}, r"layers=\[\] must be numbers of layers"),
    ({"layers": [True]}, r"layers=\[True\] must be numbers"),
    ({"layers": "01"}, "layers='01' must be numbers"),
    ({"heads": 2}, "heads=2 must be numbers of heads"),
    ({"memory": "1GB"}, "memory='1GB' must be a number of bytes: use memory=1073741824"),
    ({"memory": 0}, "memory=0 must be a number of bytes"),
    ({"memory": float("nan")}, "memory=nan must be a number of bytes"),
]


@pytest.mark.parametrize(("given", "message"), WRONG, ids=str)
def test_wrong_arguments_are_told_on_entering(given, message):
    with pytest.raises(InputError, match=message):
        clearhead.watch(model_of("llama"), **given).__enter__()


@torch.no_grad()
def test_a_head_that_a_layer_has_not_is_told(tokens):
    model = model_of("llama")
    with clearhead.watch(model, heads=[7]), pytest.raises(InputError, match=r"no heads \[7\]: choose from 0 to 3"):
        model(tokens)


@torch.no_grad()
@pytest.mark.parametrize("passes", [0, 1, 2])
def test_a_pass_that_meets_the_memory_bound_leaves_whole_passes(passes, tokens, tmp_path):
    model = model_of("llama")
    with clearhead.watch(model) as all_of_it:
        model(tokens)
    one = all_of_it.nbytes
    with clearhead.watch(model, memory=int((passes + 0.9) * one)) as seen:
        for _ in range(passes):
            model(tokens)
        with pytest.raises(InputError, match=r"choose layers=… or heads=…, or give more memory"):
            model(tokens)
    assert [sorted(run) for run in seen.runs] == [[0, 1, 2]] * passes
    assert seen.nbytes == seen.spent == passes * one
    if passes:
        assert seen.summary("entropy").entropy.shape == (3, 4, 21)
        seen.save(tmp_path / "seen.safetensors")
        assert clearhead.load_watch(tmp_path / "seen.safetensors").steps() == (21,)


@torch.no_grad()
def test_generation_that_meets_the_memory_bound_leaves_whole_passes(model, tokens):
    with clearhead.watch(model) as all_of_it:
        generate(model, tokens)
    with clearhead.watch(model, memory=int(all_of_it.nbytes * 0.93)) as seen, pytest.raises(InputError, match="memory"):
        generate(model, tokens)
    assert 2 < len(seen.steps()) < 6
    assert len({len(record.passes) for record in seen.runs[0].values()}) == 1
    count = sum(seen.steps())
    for layer in range(3):
        a, b = (np.asarray(watched.layer(layer).weights) for watched in (seen, all_of_it))
        np.testing.assert_allclose(a, b[:, :count, :count], atol=1e-7)


@torch.no_grad()
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_pass_that_fails_leaves_nothing(error, tokens):
    model = model_of("llama")

    def fail(*_):
        raise error

    with clearhead.watch(model) as seen:
        model(tokens)
        hook = model.model.layers[1].mlp.register_forward_pre_hook(fail)
        with pytest.raises(error):
            model(tokens)
        if error is not KeyboardInterrupt:  # torch calls no hook then: the next call, or the end, finds out
            assert [sorted(run) for run in seen.runs] == [[0, 1, 2]]
        hook.remove()
        model(tokens[:, :9])
        hook = model.model.layers[1].mlp.register_forward_pre_hook(fail)
        with pytest.raises(error):
            model(tokens)
        hook.remove()
    assert [seen.steps(run) for run in range(len(seen.runs))] == [(21,), (9,)]
    assert seen.spent == seen.nbytes
    assert not any(module._forward_hooks for module in model.modules())


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_models_of_float64_whose_own_attention_is_eager_are_trusted(name, tokens):
    model = model_of(name).double()
    with clearhead.watch(model) as seen:
        model(tokens)
    expected = model(tokens, output_attentions=True).attentions
    for layer in range(3):
        np.testing.assert_allclose(np.asarray(seen.layer(layer).weights), expected[layer][0], atol=1e-6)
    record = seen.runs[0][1]
    record.trusted, record.value = False, [x * (1 + 1e-3) for x in record.value]
    with pytest.raises(TrustError):
        seen.layer(1)


@torch.no_grad()
def test_models_of_float64_on_torchs_own_attention_are_held_to_float64(tokens):
    model = model_of("llama", "sdpa").double()
    with clearhead.watch(model) as seen:
        model(tokens)
    seen.layer(0)
    record = seen.runs[0][0]
    record.trusted, record.value = False, [x * (1 + 1e-7) for x in record.value]
    with pytest.raises(TrustError):
        seen.layer(0)


def sight_and_words():
    torch.manual_seed(0)
    words = tiny_models.config_of("llama", layers=3)
    sight = transformers.CLIPVisionConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=8
    )
    config = transformers.LlavaConfig(
        text_config=words, vision_config=sight, image_token_index=96, vision_feature_layer=-1
    )
    model = transformers.LlavaForConditionalGeneration._from_config(config, attn_implementation="eager").eval()
    return model, {"input_ids": torch.tensor([[1, *[96] * 4, 5, 6, 7]]), "pixel_values": torch.randn(1, 3, 16, 16)}


@torch.no_grad()
@pytest.mark.parametrize("layers", [None, [1]])
def test_the_text_layers_of_a_vision_language_model(layers):
    model, given = sight_and_words()
    model.model.vision_tower.set_attn_implementation("sdpa")
    with clearhead.watch(model, layers=layers) as seen:
        model(**given)
    assert seen.layers() == tuple(range(3) if layers is None else layers)
    assert model.model.vision_tower.config._attn_implementation == "sdpa"
    assert model.model.language_model.config._attn_implementation == "eager"
    expected = model(**given, output_attentions=True).attentions
    for layer in seen.layers():
        np.testing.assert_allclose(np.asarray(seen.layer(layer).weights), expected[layer][0], atol=1e-5)


@torch.no_grad()
def test_the_decoder_of_an_encoder_decoder(tokens):
    torch.manual_seed(0)
    config = transformers.BartConfig(
        vocab_size=97, d_model=64, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, eos_token_id=None,
        decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=64,
        forced_eos_token_id=None, decoder_start_token_id=1,
    )  # fmt: skip
    model = transformers.BartForConditionalGeneration._from_config(config, attn_implementation="eager").eval()
    with clearhead.watch(model) as seen:
        text = model.generate(tokens, max_new_tokens=6, num_beams=1, do_sample=False)
    expected = model(tokens, decoder_input_ids=text[:, :-1], output_attentions=True).decoder_attentions
    for layer in range(2):
        found = np.asarray(seen.layer(layer, sequence=1).weights)
        np.testing.assert_allclose(found, expected[layer][1], atol=1e-5)


@torch.no_grad()
def test_a_prompt_in_pieces_with_padding_on_the_left(model, tokens):
    mask = torch.ones_like(tokens)
    mask[1, :13] = 0
    with clearhead.watch(model) as seen:
        cache = transformers.DynamicCache(config=model.config)
        for start, stop in ((0, 9), (9, 17), (17, 21)):
            model(tokens[:, start:stop], attention_mask=mask[:, :stop], past_key_values=cache)
    assert seen.steps() == (9, 8, 4)
    expected = model(tokens, attention_mask=mask, output_attentions=True).attentions
    for layer in range(3):
        for sequence, begin in ((0, 0), (1, 13)):
            found = np.asarray(seen.layer(layer, sequence=sequence).weights)
            np.testing.assert_allclose(found, expected[layer][sequence, :, begin:, begin:], atol=2e-5)


@torch.no_grad()
def test_packed_documents_are_refused_for_the_true_reason(tokens):
    model = model_of("llama")
    places = torch.cat([torch.arange(n) for n in (8, 13)])[None].expand(2, -1)
    why = r"several documents in one sequence \(position_ids restart\)"
    with clearhead.watch(model) as seen, pytest.raises(InputError, match=why):
        model(tokens, position_ids=places, use_cache=False)
    assert not seen.runs


@torch.no_grad()
def test_an_attention_built_on_clearheads_is_heard_once(tokens):
    from clearhead.adapters.transformers import attention_forward, mask_forward

    transformers.AttentionInterface.register("built_on", attention_forward)
    transformers.AttentionMaskInterface.register("built_on", mask_forward)
    model = model_of("llama", "built_on")
    with clearhead.watch(model) as outer, clearhead.watch(model, layers=[1]) as inner:
        model(tokens)
    assert outer.steps() == inner.steps() == (21,)
    assert (outer.layers(), inner.layers()) == ((0, 1, 2), (1,))
    outer.layer(2)


def test_a_watch_wants_numbers(tokens):
    model = model_of("llama")
    parameters = {name: x.detach() for name, x in model.named_parameters()}
    with clearhead.watch(model) as seen, pytest.raises(InputError, match="a watch records data: call the model"):
        torch.func.grad(lambda p: torch.func.functional_call(model, p, (tokens,), {"use_cache": False}).logits.mean())(
            parameters
        )
    assert not seen.runs
    with clearhead.watch(model) as seen:
        model(tokens, labels=tokens).loss.backward()
    assert seen.layer(1).weights.shape == (4, 21, 21)
