"""Encoders, cross-attention, images, beams of an encoder-decoder: every part of a model is shown as it was."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import clearhead  # noqa: E402
from clearhead.errors import InputError  # noqa: E402
from tests import tiny_models  # noqa: E402
from tests.watched.eager import compare  # noqa: E402

SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
ENCODERS = {
    "bert": lambda: transformers.BertModel(transformers.BertConfig(vocab_size=97, **SMALL)),
    "distilbert": lambda: transformers.DistilBertModel(
        transformers.DistilBertConfig(vocab_size=97, dim=64, n_layers=2, n_heads=4, hidden_dim=64)
    ),
    "modernbert": lambda: transformers.ModernBertModel(
        transformers.ModernBertConfig(vocab_size=97, local_attention=8, pad_token_id=0, **SMALL)
    ),
    "albert": lambda: transformers.AlbertModel(transformers.AlbertConfig(vocab_size=97, embedding_size=32, **SMALL)),
}
SIZES = {
    "vocab_size": 97, "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 64,
    "eos_token_id": None, "forced_eos_token_id": None, "decoder_start_token_id": 1,
}  # fmt: skip
ENCODER_DECODERS = {
    "bart": lambda: transformers.BartForConditionalGeneration(transformers.BartConfig(**SIZES)),
    "t5": lambda: transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=97, d_model=64, d_kv=16, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=1,
            eos_token_id=None, pad_token_id=0, relative_attention_max_distance=8, relative_attention_num_buckets=8,
        )
    ),
}  # fmt: skip


@pytest.fixture
def tokens():
    torch.manual_seed(1)
    return torch.randint(3, 97, (2, 13))


@pytest.fixture
def mask(tokens):
    mask = torch.ones_like(tokens)
    mask[1, 9:] = 0
    return mask


def made(make, attention):
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(word in name for word in ("query", "q_lin", "q_proj", "k_proj", "Wqkv", "relative_attention_bias")):
                parameter.mul_(6)
    model.set_attn_implementation(attention)
    return model


@torch.no_grad()
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_with_padding(name, attention, tokens, mask):
    model = made(ENCODERS[name], attention)
    before = model(tokens, attention_mask=mask)[0]
    with clearhead.watch(model) as seen:
        found = model(tokens, attention_mask=mask)[0]
    assert torch.equal(found, before)
    model.set_attn_implementation("eager")
    compare(seen, model(tokens, attention_mask=mask, output_attentions=True).attentions, ends=[13, 9])
    assert np.array_equal(seen.token_ids(sequence=1), tokens[1, :9])


@torch.no_grad()
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_all_parts_of_an_encoder_decoder(name, attention, tokens, mask):
    model = made(ENCODER_DECODERS[name], attention)
    options = {"attention_mask": mask, "max_new_tokens": 6, "num_beams": 1, "do_sample": False}
    before = model.generate(tokens, **options)
    with clearhead.watch(model) as seen:
        text = model.generate(tokens, **options)
    assert torch.equal(text, before)
    assert seen.parts() == {"encoder": (0, 1), "decoder": (0, 1), "cross": (0, 1)}
    model.set_attn_implementation("eager")
    expected = model(tokens, attention_mask=mask, decoder_input_ids=text[:, :-1], output_attentions=True)
    compare(seen, expected.encoder_attentions, part="encoder", ends=[13, 9])
    compare(seen, expected.decoder_attentions, part="decoder")
    compare(seen, expected.cross_attentions, part="cross", ends=[13, 9])
    assert seen.steps(part="cross") == seen.steps(part="decoder") == (1,) * 6
    assert seen.layer(1).part == "decoder"


@torch.no_grad()
@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_beams_of_an_encoder_decoder(name, tokens, mask):
    model = made(ENCODER_DECODERS[name], "sdpa")
    with clearhead.watch(model) as seen:
        model.generate(tokens, attention_mask=mask, max_new_tokens=6, num_beams=3, do_sample=False)
    model.set_attn_implementation("eager")
    for sequence in range(6):
        ids, own = torch.tensor(seen.token_ids(sequence=sequence, part="decoder"))[None], [sequence // 3]
        given = {"attention_mask": mask[own], "decoder_input_ids": ids, "output_attentions": True}
        expected, end = model(tokens[own], **given), (13, 9)[own[0]]
        for layer in range(2):
            shown = np.asarray(seen.layer(layer, sequence=sequence, part="decoder").weights)
            np.testing.assert_allclose(shown, expected.decoder_attentions[layer][0], atol=2e-5)
            shown = np.asarray(seen.layer(layer, sequence=sequence, part="cross").weights)
            np.testing.assert_allclose(shown, expected.cross_attentions[layer][0, :, :, :end], atol=2e-5)


@torch.no_grad()
def test_one_pass_of_a_decoder_over_an_encoders_output(tokens, mask):
    """Cross-attention with fewer, as many and more queries than keys."""
    model = made(ENCODER_DECODERS["bart"], "sdpa")
    for queries in (5, 13, 20):
        ids = torch.randint(3, 97, (2, queries))
        with clearhead.watch(model, parts="cross") as seen:
            model(tokens, attention_mask=mask, decoder_input_ids=ids)
        assert list(seen.parts()) == ["cross"]
        model.set_attn_implementation("eager")
        expected = model(tokens, attention_mask=mask, decoder_input_ids=ids, output_attentions=True).cross_attentions
        model.set_attn_implementation("sdpa")
        compare(seen, expected, part="cross", ends=[13, 9])


@torch.no_grad()
def test_parts_are_chosen_by_name(tokens, mask):
    model = made(ENCODER_DECODERS["bart"], "sdpa")
    with clearhead.watch(model, parts=["encoder", "cross"], layers=[1]) as seen:
        model(tokens, attention_mask=mask, decoder_input_ids=tokens)
    assert seen.parts() == {"encoder": (1,), "cross": (1,)}
    with pytest.raises(InputError, match="decoder"):
        seen.layer(1, part="decoder")


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
def test_text_and_image_of_a_vision_language_model(layers):
    model, given = sight_and_words()
    model.model.vision_tower.set_attn_implementation("sdpa")
    with clearhead.watch(model, layers=layers) as seen:
        model(**given)
    assert seen.layers() == tuple(range(3) if layers is None else layers)
    assert model.model.vision_tower.config._attn_implementation == "sdpa"
    expected = model(**given, output_attentions=True).attentions
    for layer in seen.layers():
        np.testing.assert_allclose(np.asarray(seen.layer(layer).weights), expected[layer][0], atol=1e-5)
    model.model.vision_tower.set_attn_implementation("eager")
    expected = model.model.vision_tower(given["pixel_values"], output_attentions=True).attentions
    for layer in seen.layers(part="vision"):
        shown = np.asarray(seen.layer(layer, part="vision").weights)
        np.testing.assert_allclose(shown, expected[layer][0], atol=1e-5)


@torch.no_grad()
def test_an_image_models_patches():
    torch.manual_seed(0)
    config = transformers.ViTConfig(**SMALL, image_size=16, patch_size=8)
    model = made(lambda: transformers.ViTModel(config), "sdpa")
    image = torch.randn(2, 3, 16, 16)
    with clearhead.watch(model) as seen:
        model(image)
    model.set_attn_implementation("eager")
    compare(seen, model(image, output_attentions=True).attentions)
    with pytest.raises(InputError, match="were not seen"):
        seen.token_ids()
