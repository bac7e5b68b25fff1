"""What can be read: watches and their edits, matrices made elsewhere, models in folders, pictures; and what cannot."""

import numpy as np
import pytest

import clearhead
from clearhead import weights
from clearhead.errors import FileError, InputError
from clearhead.reading import models
from clearhead.reading.answers import Reader
from clearhead.reading.sources import readings_of, watch_file
from tests.arrays import random

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tests import tiny_models  # noqa: E402

WORDS = "the whale was white and sea wide"
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}


def row_of(reading, *, part, layer=0, head=0, at=0, by="row", measure="weight"):
    """A row or column, as the page asks for it."""
    asked = {"reading": 0, "part": part, "layer": layer, "heads": [head], "join": "one", "measure": measure}
    return Reader([reading]).answer("line", asked | {"by": by, "at": at}).values


@pytest.mark.parametrize("make", [
    lambda x: x, lambda x: torch.tensor(x), lambda x: torch.tensor(x)[None], lambda x: x.astype(np.float64),
    lambda x: torch.tensor(x).bfloat16(), lambda x: 0.5 * x,
])  # fmt: skip
def test_matrices_that_others_made_are_read_as_they_are(make):
    q = random(3, 40, 8)
    given = make(np.asarray(weights(q, q)))
    [reading] = readings_of(given, [f"t{n}" for n in range(40)])
    wanted = np.asarray(given.float() if hasattr(given, "float") else given).reshape(3, 40, 40)
    for by, matrix in (("row", wanted[1]), ("column", wanted[1].T)):
        np.testing.assert_allclose(row_of(reading, part="attention", head=1, at=7, by=by), matrix[7], atol=1e-7)
    assert reading.stack().layers[0].sees.high == 0


def test_a_matrix_without_a_mask_is_seen_whole():
    x = np.abs(random(5, 9))
    [reading] = readings_of(x)
    assert reading.stack().layers[0].sees.high is None
    np.testing.assert_allclose(row_of(reading, part="attention", at=4), x[4], rtol=1e-6)


@pytest.mark.parametrize(("given", "said"), [
    (np.array([[1.0, -1.0]]), "negative or infinite"), (np.array([[np.nan]]), "NaNs"),
    (np.zeros((2, 2, 2, 2)), r"\(2, 2, 2, 2\) is not weights"), (np.array([["a"]]), "not weights: give floats"),
    (np.zeros((0, 3)), "is not weights"), (5, "not weights"), ([[1.0]], "not weights"),
])  # fmt: skip
def test_what_is_no_matrix_of_weights_is_refused(given, said):
    with pytest.raises(InputError, match=said):
        readings_of(given)


def test_edits_are_told_with_the_layers_they_changed(tmp_path):
    model = tiny_models.model_of("llama", "sdpa")
    torch.manual_seed(1)
    ids = torch.randint(3, 97, (2, 9))
    with torch.no_grad(), clearhead.watch(model) as before:
        model(ids)
    with torch.no_grad(), clearhead.intervene(model) as change:
        change.cut(1, [2], keys=[0])
        with clearhead.watch(model) as after:
            model(ids)
    first, second = readings_of(before)
    edited, _ = readings_of(after)
    assert [layer.edits for layer in first.stack().layers.values()] == [(), ()]
    assert [len(layer.edits) for layer in edited.stack().layers.values()] == [0, 1]
    assert [layer.sees.other for layer in edited.stack().layers.values()] == [False, True]
    assert "cut(layer=1" in edited.stack().layers[1].edits[0]
    assert row_of(edited, part="decoder", layer=1, head=2, at=8)[0] == 0
    assert row_of(first, part="decoder", layer=1, head=2, at=8)[0] > 0
    assert second.title == " ".join(map(str, ids[1].tolist()))
    assert list(second.tokens) == [str(int(n)) for n in ids[1]]
    before.save(tmp_path / "seen.safetensors")
    saved = watch_file(tmp_path / "seen.safetensors")
    assert len(saved) == 2
    for one in (0, 1):
        for measure in ("weight", "value"):
            a, b = (
                row_of(x, part="decoder", head=3, at=5, measure=measure) for x in (saved[one], (first, second)[one])
            )
            np.testing.assert_array_equal(a, b)
    assert "load_watch" in saved[0].code.setup[1]


@pytest.fixture(scope="module")
def tokenizer():
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel

    words = ["<pad>", "<s>", "</s>", *WORDS.split()]
    made = Tokenizer(WordLevel({word: n for n, word in enumerate(words)}, unk_token="<pad>"))  # noqa: S106
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"unk_token": "<pad>", "pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **special)


def folder_of(model, maker, place):
    """A folder with a model and what makes its inputs."""
    model.save_pretrained(place)
    maker.save_pretrained(place)
    return place


def test_an_encoder_reads_and_says_what_is_too_long(tokenizer, tmp_path):
    config = transformers.BertConfig(vocab_size=20, max_position_embeddings=16, **SIZES)
    folder = folder_of(transformers.BertModel(config), tokenizer, tmp_path)
    reading = models.from_folder(folder, WORDS)
    assert list(reading.stacks) == ["encoder"]
    assert list(reading.tokens) == WORDS.split()
    assert "AutoModel.from_pretrained" in reading.code.setup[1]
    with pytest.raises(InputError, match=r"failed over 70 tokens .*; it was made for 16 tokens\): give a shorter text"):
        models.from_folder(folder, WORDS + f" {WORDS}" * 9)
    with pytest.raises(InputError, match="cannot go on with a text: leave out --generate"):
        models.from_folder(folder, WORDS, 3)
    with pytest.raises(InputError, match=r"no image processor, so it takes no pictures .*: give a text"):
        models.from_picture(folder, tmp_path / "x.png")


def test_a_decoder_is_told_when_a_text_is_longer_than_it_was_made_for(tokenizer, tmp_path):
    config = transformers.LlamaConfig(vocab_size=20, max_position_embeddings=16, **SIZES)
    folder = folder_of(transformers.LlamaForCausalLM(config), tokenizer, tmp_path)
    reading = models.from_folder(folder, f"{WORDS} {WORDS} {WORDS}", 2)
    assert reading.notes == (f"{tmp_path.name} was made for 16 tokens, and this text has 21.",)
    assert reading.stack().steps == (21, 1)
    again = reading.again("the sea")
    assert list(again.tokens)[:2] == ["the", "sea"]


def test_an_encoder_and_its_decoder_have_three_parts(tokenizer, tmp_path):
    config = transformers.BartConfig(
        vocab_size=20, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=64, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, forced_eos_token_id=None,
    )  # fmt: skip
    folder = folder_of(transformers.BartForConditionalGeneration(config), tokenizer, tmp_path)
    reading = models.from_folder(folder, WORDS)
    assert set(reading.stacks) == {"decoder", "encoder", "cross"}
    cross = reading.stack("cross")
    layer = cross.layers[0]
    assert cross.crosses
    assert list(cross.names(layer, "keys")) == WORDS.split()
    assert cross.names(layer, "queries")[0] == "<s>"
    row = row_of(reading, part="cross", at=0)
    assert row.sum(dtype=np.float64) == pytest.approx(1, abs=1e-5)


def test_a_picture_is_read_as_the_model_saw_it(tmp_path):
    image = pytest.importorskip("PIL.Image")
    config = transformers.ViTConfig(image_size=24, patch_size=8, **SIZES)
    maker = transformers.ViTImageProcessor(size={"height": 24, "width": 24})
    folder = folder_of(transformers.ViTModel(config), maker, tmp_path)
    picture = tmp_path / "half.png"
    pixels = np.zeros((48, 48, 3), np.uint8)
    pixels[:, 24:] = 255
    image.fromarray(pixels).save(picture)
    reading = models.from_picture(folder, picture)
    stack = reading.stack()
    assert (stack.grid.rows, stack.grid.columns, stack.grid.before) == (3, 3, 1)
    assert list(reading.tokens)[:2] == ["[class]", "row 1, column 1"]
    import io

    seen = np.asarray(image.open(io.BytesIO(reading.picture)))
    assert seen.shape == (24, 24, 3)
    assert seen[:, :8].max() < 30
    assert seen[:, 16:].min() > 225
    with pytest.raises(FileError, match="cannot be read"):
        models.from_picture(folder, tmp_path / "config.json")
    with pytest.raises(InputError, match="no tokenizer"):
        models.from_folder(folder, WORDS)
