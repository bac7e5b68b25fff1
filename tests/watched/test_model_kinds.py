"""Kinds of models and of running them, small and with random weights: a fast part of `scripts/kinds`."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from watched_kinds import media, text, torch_models  # noqa: E402
from watched_kinds.rows import outcome  # noqa: E402

import clearhead  # noqa: E402
from clearhead.errors import InputError  # noqa: E402

ROWS = {row.name: row for source in (text.rows, media.rows, torch_models.rows) for row in source()}
RIGHT = [
    "Llama, inner padding", "BERT, right padding", "Mistral past its window, left padding",
    "Llama, a 4-d mask of numbers",
    "Llama, packed documents (position_ids)", "Llama 4, chunks", "T5, inner padding", "T5, both sides padded",
    "Falcon, ALiBi, left padding", "beams, all returned", "an assistant model", "prompt lookup",
    "Mistral, static cache past its window", "Mistral, two turns on a cache", "Llama, a cache cut back (crop)",
    "Llama, a cache filled before", "training, gradient checkpointing", "float16", "ViTModel", "SwinModel",
    "CLIPModel, both towers", "DetrModel, queries for boxes", "LLaVA, generate", "Qwen2.5-VL, generate", "Gemma 3",
    "mllama, generate", "HubertModel", "Whisper, generate", "a float mask of biases", "a mask without pattern, scale",
    "a cache of its own, in pieces", "cross-attention, padded text", "self- and cross-attention in a module",
    "a layer that runs three times", "a function of the model's file", "no axis of heads", "two axes of sequences",
    "flex_attention, BlockMask and softcap", "gradient checkpointing", "nn.MultiheadAttention, add_bias_kv",
    "nn.MultiheadAttention, weights asked for", "nn.MultiheadAttention, key_padding_mask", "nn.Transformer",
    "nn.TransformerEncoder, padding, nested",
]  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_weights_are_those_of_the_model(name):
    assert outcome(ROWS[name])[0] == "right", outcome(ROWS[name])


@pytest.mark.parametrize("name", ["Bloom", "DeBERTa", "Longformer", "matrix products of its own"])
def test_attention_by_own_code_is_refused_by_name(name):
    result, words = outcome(ROWS[name])
    assert result == "refused"
    assert "computes attention by code of its own" in words


@torch.no_grad()
def test_parts_have_the_names_of_what_they_see():
    parts = {}
    for name in ("ViTModel", "HubertModel", "CLIPModel, both towers", "Whisper", "mllama"):
        model, given = ROWS[name].make()
        with clearhead.watch(model) as seen:
            ROWS[name].run(model, given)
        parts[name] = list(seen.parts())
    assert parts["ViTModel"] == ["vision"]
    assert parts["HubertModel"] == ["audio"]
    assert parts["CLIPModel, both towers"] == ["vision", "text"] or parts["CLIPModel, both towers"] == [
        "text",
        "vision",
    ]
    assert sorted(parts["Whisper"]) == ["cross", "decoder", "encoder"]
    assert {"vision", "text", "cross"} <= set(parts["mllama"])


@torch.no_grad()
def test_an_image_has_rows_and_columns_of_patches():
    config = transformers.ViTConfig(**media.VISION | {"image_size": [32, 48]})
    model = media.built("ViTModel", config)
    with clearhead.watch(model) as seen:
        model(media.pixels(1, 3, 32, 48))
    assert seen.grid() == (4, 6)
    assert seen.layer(0).weights.shape == (4, 25, 25)
    windows, given = ROWS["SwinModel"].make()
    with clearhead.watch(windows) as seen:
        windows(**given)
    with pytest.raises(InputError, match="no grid of patches"):
        seen.grid()


@torch.no_grad()
def test_a_layer_in_pieces_is_one_layer():
    model, given = ROWS["Qwen2-VL"].make()
    with clearhead.watch(model) as seen:
        model(**given)
    assert seen.layers(part="vision") == (0, 1)
    shown = np.asarray(seen.layer(1, part="vision").weights)
    assert shown.shape == (4, 128, 128)  # two images of 64 patches
    assert not shown[:, :64, 64:].any()
    assert not shown[:, 64:, :64].any()
    np.testing.assert_allclose(shown.sum(-1), 1, atol=1e-5)


class Words:
    def decode(self, numbers):
        return f"word {numbers[0]}"


@torch.no_grad()
def test_tokens_have_the_text_that_a_tokenizer_gives():
    model, given = text.llama(), text.padded(left=5)
    with clearhead.watch(model, tokenizer=Words()) as seen:
        model(**given)
    assert seen.tokens(sequence=1) == [f"word {int(n)}" for n in given["input_ids"][1, 5:]]


@torch.no_grad()
def test_layers_that_are_given_their_attention_are_found_as_they_run():
    model = torch_models.seeded(
        lambda: torch_models.Stack(*(torch_models.Block(torch_models.causal) for _ in range(3)))
    )
    with clearhead.watch(model, layers=[0, 2]) as seen:
        model(torch_models.numbers(2, 12, 32))
    assert seen.layers() == (0, 2)


@torch.no_grad()
def test_keys_that_a_model_computes_anew_are_followed():
    model, x = torch_models.seeded(torch_models.Latent), torch_models.numbers(1, 9, 32)
    with clearhead.watch(model) as seen:
        _, past = model(x[:, :7])
        _, past = model(x[:, 7:8], past)
        model(x[:, 8:], past)
    assert len(seen.runs) == 1
    assert seen.steps() == (7, 1, 1)
    assert seen.layer(0).weights.shape == (4, 9, 9)
