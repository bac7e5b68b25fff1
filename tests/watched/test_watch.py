"""What a watch shows of a decoder is what the model did, over prompts, caches and generated texts."""

import copy
from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import clearhead  # noqa: E402
from clearhead.adapters.torch import reading  # noqa: E402
from clearhead.adapters.transformers.intervals import COMPARED_ROWS  # noqa: E402
from clearhead.adapters.transformers.mask import Pattern  # noqa: E402
from clearhead.errors import InputError  # noqa: E402
from tests import tiny_models  # noqa: E402
from tests.watched.eager import compare  # noqa: E402

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


def eager(model, tokens, mask=None, **options):
    """The matrices of eager attention."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    found = model(tokens, attention_mask=mask, output_attentions=True, **options).attentions
    model.set_attn_implementation(before)
    return found


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
    expected = eager(model, text[:, :-1], whole)
    compare(seen, expected, begins=[0, left])
    shown = seen.layer(1, sequence=1)
    real = expected[1][1, :, left:, left:].numpy()
    np.testing.assert_allclose(np.asarray(shown.head(3).weights), real[3], atol=2e-5)
    np.testing.assert_allclose(shown.head(1).step(2), real[1, 22 - left : 23 - left], atol=2e-5)
    assert np.array_equal(seen.token_ids(sequence=1), text[1, left:-1])


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_every_implementation_are_the_eager_ones(kind, tokens):
    model, mask = model_of(kind), torch.ones_like(tokens)
    mask[1, :7] = 0
    for attention in ("clearhead",) if kind in ("gemma2", "gpt_oss") else ("sdpa", "clearhead"):
        model.set_attn_implementation(attention)
        with clearhead.watch(model) as seen:
            text = generate(model, tokens, mask)
        whole = torch.cat([mask, torch.ones(2, 5, dtype=torch.long)], 1)
        compare(seen, eager(model, text[:, :-1], whole), begins=[0, 7])


@torch.no_grad()
def test_some_layers_and_heads(tokens):
    model = model_of("llama")
    expected = eager(model, tokens)
    with clearhead.watch(model, layers=[2], heads=[3, 0]) as seen:
        model(tokens)
    assert seen.layers() == (2,)
    assert seen.layer(2).heads == (3, 0)
    for head in (0, 3):
        np.testing.assert_allclose(np.asarray(seen.layer(2).head(head).weights), expected[2][0, head], atol=2e-5)
    with clearhead.watch(model, heads=[1, 1]) as one:
        model(tokens)
    assert one.layer(0).heads == (1,)
    np.testing.assert_allclose(np.asarray(one.layer(0).head(1).weights), expected[0][0, 1], atol=2e-5)
    assert one.layer(0).values.shape == (1, 21, 16)
    with pytest.raises(InputError, match="head 1 of layer 2 was not watched"):
        seen.layer(2).head(1)
    assert [seen.layer(n).number for n in (-1, -len(seen.layers()))] == [seen.layers()[-1], seen.layers()[0]]
    with pytest.raises(InputError, match="layer -9 was not watched: choose from"):
        seen.layer(-9)
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


@torch.no_grad()
def test_the_same_prompt_again_is_a_run_of_its_own(tokens):
    model = model_of("llama", "sdpa")
    with clearhead.watch(model) as seen:
        texts = [generate(model, tokens) for _ in range(2)]
    assert torch.equal(*texts)
    assert [seen.steps(run) for run in range(2)] == [(21, 1, 1, 1, 1, 1)] * 2
    for layer in range(3):
        a, b = (np.asarray(seen.layer(layer, run=run).weights) for run in range(2))
        assert np.array_equal(a, b)


@torch.no_grad()
def test_a_chat_goes_on_over_its_cache(model, tokens):
    cache = transformers.DynamicCache(config=model.config)
    more = torch.tensor([[5, 6, 7], [8, 9, 10]])
    with clearhead.watch(model) as seen:
        text = generate(model, tokens, past_key_values=cache)
        text = generate(model, torch.cat([text, more], 1), past_key_values=cache)
    assert len(seen.runs) == 1
    assert sum(seen.steps()) == text.shape[1] - 1
    compare(seen, eager(model, text[:, :-1]))


@torch.no_grad()
def test_a_cache_filled_before_the_watch(tokens):
    model = model_of("llama", "sdpa")
    cache = transformers.DynamicCache(config=model.config)
    model(tokens[:, :9], past_key_values=cache)
    with clearhead.watch(model) as seen:
        model(tokens[:, 9:17], past_key_values=cache)
        model(tokens[:, 17:], past_key_values=cache)
    assert seen.steps() == (8, 4)
    for layer, real in enumerate(eager(model, tokens)):
        np.testing.assert_allclose(np.asarray(seen.layer(layer).weights), real[0, :, 9:], atol=2e-5)


@torch.no_grad()
def test_a_prompt_in_pieces_with_padding_on_the_left(model, tokens):
    mask = torch.ones_like(tokens)
    mask[1, :13] = 0
    with clearhead.watch(model) as seen:
        cache = transformers.DynamicCache(config=model.config)
        for start, stop in ((0, 9), (9, 17), (17, 21)):
            model(tokens[:, start:stop], attention_mask=mask[:, :stop], past_key_values=cache)
    assert seen.steps() == (9, 8, 4)
    compare(seen, eager(model, tokens, mask), begins=[0, 13])


@torch.no_grad()
@pytest.mark.parametrize("attention", ["eager", "sdpa", "clearhead"])
def test_padding_on_the_right(attention, tokens):
    model, mask = model_of("llama", attention), torch.ones_like(tokens)
    mask[0, -3:] = 0
    with clearhead.watch(model) as seen:
        model(tokens, attention_mask=mask)
    compare(seen, eager(model, tokens, mask), ends=[18, 21])


@torch.no_grad()
@pytest.mark.parametrize("attention", ["eager", "sdpa", "clearhead"])
def test_padding_in_between(attention, tokens):
    model, mask = model_of("llama", attention), torch.ones_like(tokens)
    mask[0, 5:9] = 0
    with clearhead.watch(model) as seen:
        model(tokens, attention_mask=mask)
    there = mask[0].bool()
    for layer, real in enumerate(eager(model, tokens, mask)):
        np.testing.assert_allclose(seen.layer(layer).weights, real[0][:, there][..., there], atol=2e-5)


@torch.no_grad()
@pytest.mark.parametrize("attention", ["eager", "sdpa", "clearhead"])
def test_packed_documents(attention, tokens):
    model = model_of("llama", attention)
    places = torch.cat([torch.arange(n) for n in (8, 13)])[None].expand(2, -1)
    with clearhead.watch(model) as seen:
        model(tokens, position_ids=places, use_cache=False)
    compare(seen, eager(model, tokens, position_ids=places, use_cache=False))
    assert repr(seen.layer(0).sequence.mask) == "documents([8, 13]) & causal()"


@torch.no_grad()
@pytest.mark.parametrize("attention", ["eager", "sdpa", "clearhead"])
def test_a_mask_of_ones_own(attention, tokens):
    model = model_of("llama", attention)
    torch.manual_seed(3)
    table = torch.rand(2, 1, 21, 21) < 0.5
    table |= torch.eye(21, dtype=torch.bool)
    mask = torch.where(table, 0.0, torch.finfo(torch.float32).min)
    with clearhead.watch(model) as seen:
        model(tokens, attention_mask=mask)
    expected = eager(model, tokens, mask)
    compare(seen, expected)
    assert np.array_equal(np.asarray(seen.layer(0).weights) > 0, (expected[0][0] > 0).numpy())


@torch.no_grad()
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("returned", [1, 3])
def test_beams(attention, returned, tokens):
    model, mask = model_of("llama", attention), torch.ones_like(tokens)
    mask[1, :7] = 0
    with clearhead.watch(model) as seen:
        generate(model, tokens, mask, num_beams=3, num_return_sequences=returned)
    assert seen.sequences() == 6
    for sequence in range(6):
        ids = torch.tensor(seen.token_ids(sequence=sequence))[None]
        assert torch.equal(ids[0, : 21 - 7 * (sequence > 2)], tokens[sequence // 3, 7 * (sequence > 2) :])
        for layer, real in enumerate(eager(model, ids)):
            np.testing.assert_allclose(seen.layer(layer, sequence=sequence).weights, real[0], atol=2e-5)


@torch.no_grad()
def test_candidates_that_a_helping_model_proposed_and_this_one_rejected(tokens):
    model, other = model_of("llama"), model_of("llama")
    other.model.layers[1].mlp.down_proj.weight.mul_(3)
    one = tokens[:1]
    with clearhead.watch(model) as seen:
        text = generate(model, one, assistant_model=other)
    assert torch.equal(text, generate(model, one))
    ids = torch.tensor(seen.token_ids())[None]
    assert torch.equal(ids, text[:, : ids.shape[1]])
    for layer, real in enumerate(eager(model, ids)):
        np.testing.assert_allclose(seen.layer(layer).weights, real[0], atol=2e-5)


@torch.no_grad()
def test_keys_that_a_program_drops_from_its_cache(tokens):
    """A cache that keeps its first 2 and its last 6 keys, as StreamingLLM does."""
    model = model_of("llama")
    cache, held, tables = transformers.DynamicCache(config=model.config), list(range(12)), []
    with clearhead.watch(model) as seen:
        model(tokens[:1, :12], past_key_values=cache)
        for n in range(12, 21):
            for layer in cache.layers:
                keep = [*range(2), *range(len(held) - 6, len(held))]
                layer.keys, layer.values = layer.keys[:, :, keep], layer.values[:, :, keep]
            held = [held[i] for i in keep] + [n]
            given = {"past_key_values": cache, "position_ids": torch.tensor([[n]])}
            tables.append((n, held, model(tokens[:1, n : n + 1], **given, output_attentions=True).attentions))
    assert seen.steps() == (12, *[1] * 9)
    for n, there, weights in tables:
        for layer in range(3):
            row = np.zeros((4, 21), np.float32)
            row[:, there] = weights[layer][0, :, 0]
            np.testing.assert_allclose(np.asarray(seen.layer(layer).weights)[:, n], row, atol=2e-5)


@torch.no_grad()
def test_only_the_watched_model_is_recorded(tokens):
    model, other = model_of("llama"), model_of("mistral")
    other.set_attn_implementation("clearhead")
    with clearhead.watch(model) as seen:
        other(tokens)
    with pytest.raises(InputError, match="0 were: call the model inside"):
        seen.layer(0)
    ours = copy.deepcopy(model)
    with clearhead.watch(ours) as seen:
        ours(tokens)
    assert seen.layer(0).weights.shape == (4, 21, 21)


SMALL = {"vocab_size": 97, "hidden_size": 64}
OWN_ATTENTION = {
    "Bloom": transformers.BloomConfig(**SMALL, n_layer=2, n_head=4),
    "GPTNeo": transformers.GPTNeoConfig(
        **SMALL, num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]], max_position_embeddings=64
    ),
    "Mpt": transformers.MptConfig(vocab_size=97, d_model=64, n_layers=2, n_heads=4),
}


@pytest.mark.parametrize("name", OWN_ATTENTION)
def test_what_would_record_nothing_is_refused_on_entering(name):
    model = transformers.AutoModelForCausalLM.from_config(OWN_ATTENTION[name])
    with pytest.raises(InputError, match=f"{name}ForCausalLM computes attention by code of its own"):
        clearhead.watch(model).__enter__()


def test_what_is_no_model_is_refused_on_entering():
    with pytest.raises(InputError, match="Linear computes attention by code of its own: only attention by"):
        clearhead.watch(torch.nn.Linear(2, 2)).__enter__()
    with pytest.raises(InputError, match=r"str is not a model: give a torch\.nn\.Module"):
        clearhead.watch("model").__enter__()


@torch.no_grad()
def test_a_model_that_computes_elsewhere_than_its_code_says_is_told(tokens):
    models = {}
    for name in ("eager", "sdpa"):
        config = transformers.FalconConfig(**SMALL, num_hidden_layers=2, num_attention_heads=4)
        torch.manual_seed(0)
        models[name] = transformers.FalconForCausalLM._from_config(config, attn_implementation=name).eval()
    why = r"FalconForCausalLM ran, but called none of the functions .*'sdpa'"
    with pytest.raises(InputError, match=why), clearhead.watch(models["eager"]):
        models["eager"](tokens)
    with clearhead.watch(models["sdpa"]) as seen:
        models["sdpa"](tokens)
    compare(seen, models["eager"](tokens, output_attentions=True).attentions)


WRONG = [
    ({"layers": [99]}, r"has no layers \[99\] to watch: choose from 0 to 2"),
    ({"layers": [0, -1]}, r"has no layers \[-1\] to watch"),
    ({"layers": 1}, r"layers=1 must be numbers of layers: give a list, as layers=\[0, 5\]"),
    ({"layers": []}, r"layers=\[\] must be numbers of layers"),
    ({"layers": [True]}, r"layers=\[True\] must be numbers"),
    ({"layers": "01"}, "layers='01' must be numbers"),
    ({"heads": 2}, "heads=2 must be numbers of heads"),
    ({"parts": ["encoder"]}, r"LlamaForCausalLM has no part encoder: choose from decoder"),
    ({"parts": 3}, r"parts=3 must be names of parts"),
    ({"parts": []}, r"parts=\[\] must be names of parts"),
    ({"memory": "1GB"}, "memory='1GB' must be a number of bytes: use memory=1073741824"),
    ({"memory": 0}, "memory=0 must be a number of bytes"),
    ({"memory": float("nan")}, "memory=nan must be a number of bytes"),
    ({"tokenizer": "gpt2"}, r"tokenizer='gpt2' has no method decode\(numbers\): give the model's own"),
]


@pytest.mark.parametrize(("given", "message"), WRONG, ids=str)
def test_wrong_arguments_are_told_on_entering(given, message):
    with pytest.raises(InputError, match=message):
        clearhead.watch(model_of("llama"), **given).__enter__()


@torch.no_grad()
@pytest.mark.parametrize("heads", [[7], [-1]])
def test_heads_that_a_layer_has_not_are_told(heads, tokens):
    model = model_of("llama")
    with pytest.raises(InputError, match=r"heads"), clearhead.watch(model, heads=heads) as seen:
        model(tokens)
    assert not seen.runs


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama", "gemma2"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_models_of_other_dtypes(name, dtype, tokens):
    model = model_of(name).to(dtype)
    with clearhead.watch(model) as seen:
        model(tokens)
    atol = 1e-6 if dtype == torch.float64 else 2e-2
    compare(seen, eager(model, tokens), atol=atol)
    assert seen.layer(0).weights.dtype == (np.float64 if dtype == torch.float64 else np.float32)


@torch.no_grad()
def test_under_autocast(tokens):
    model = model_of("llama", "sdpa")
    with torch.autocast("cpu", torch.bfloat16):
        expected = model(tokens).logits
        with clearhead.watch(model) as seen:
            found = model(tokens).logits
        assert torch.equal(found, expected)
        compare(seen, eager(model, tokens), atol=2e-2)


@torch.no_grad()
def test_an_attention_built_on_clearheads_is_seen_once(tokens):
    from clearhead.adapters.transformers import attention_forward, mask_forward

    transformers.AttentionInterface.register("built_on", attention_forward)
    transformers.AttentionMaskInterface.register("built_on", mask_forward)
    model = model_of("llama", "built_on")
    with clearhead.watch(model) as outer, clearhead.watch(model, layers=[1]) as inner:
        model(tokens)
    assert outer.steps() == inner.steps() == (21,)
    assert (outer.layers(), inner.layers()) == ((0, 1, 2), (1,))
    outer.layer(2)


@pytest.mark.parametrize("attention", ["eager", "sdpa", "clearhead"])
def test_in_inference_mode(attention, tokens):
    model, mask = model_of("llama", attention), torch.ones_like(tokens)
    mask[1, :7] = 0
    with torch.inference_mode(), clearhead.watch(model) as seen:
        model(tokens, attention_mask=mask)
    with torch.no_grad():
        compare(seen, eager(model, tokens, mask), begins=[0, 7])


@torch.no_grad()
@pytest.mark.parametrize("attention", ["eager", "sdpa", "clearhead"])
def test_a_mask_is_read_once_for_all_layers(attention, tokens, monkeypatch):
    model, mask, times = model_of("llama", attention), torch.ones_like(tokens), []
    right = reading.read_visible
    monkeypatch.setattr(reading, "read_visible", lambda call: (times.append(1), right(call))[1])
    mask[1, :7] = 0
    with clearhead.watch(model):
        model(tokens, attention_mask=mask)
    assert len(times) == 1


@torch.no_grad()
def test_watching_clearheads_attention_looks_at_few_rows_of_a_mask(tokens, monkeypatch):
    """All pairs of a long prompt would take longer than its attention."""
    model, mask, rows = model_of("llama", "clearhead"), torch.ones(1, 200), []
    mask[0, :7] = 0
    right = Pattern.row_seen
    monkeypatch.setattr(Pattern, "row_seen", lambda self, numbers: (rows.append(len(numbers)), right(self, numbers))[1])
    for given in (mask, None):
        with clearhead.watch(model):
            model(tokens.flatten()[:40].repeat(5)[None], attention_mask=given)
    assert 0 < sum(rows) <= 2 * COMPARED_ROWS


def test_training_is_seen(tokens):
    model = model_of("llama", "sdpa")
    with clearhead.watch(model) as seen:
        model(tokens, labels=tokens).loss.backward()
    with torch.no_grad():
        compare(seen, eager(model, tokens))


def test_torchs_transformations_are_refused_or_seen_by_name(tokens):
    model = model_of("llama")
    parameters = {name: x.detach() for name, x in model.named_parameters()}

    def loss(p):
        return torch.func.functional_call(model, p, (tokens,), {"use_cache": False}).logits.mean()

    with pytest.raises(InputError, match="call the model"), clearhead.watch(model) as seen:
        torch.func.grad(loss)(parameters)
    assert not seen.runs


@torch.no_grad()
def test_tokens_have_their_text_if_there_is_a_tokenizer(tokens):
    class Tokenizer:
        def convert_ids_to_tokens(self, ids):
            return [f"t{n}" for n in ids]

        def decode(self, ids):
            return "".join(f"t{n}" for n in ids)

    model = model_of("llama")
    with clearhead.watch(model, tokenizer=Tokenizer()) as seen:
        model(tokens)
    assert seen.tokens(sequence=1) == [f"t{n}" for n in tokens[1].tolist()]
    with clearhead.watch(model) as seen:
        model(tokens)
    with pytest.raises(InputError, match="give watch"):
        seen.tokens()
