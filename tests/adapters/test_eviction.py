"""A transformers cache cut to chosen keys: the model goes on as if the others were hidden, at the right positions."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import clearhead  # noqa: E402
from clearhead import InputError, eviction  # noqa: E402
from clearhead.adapters.transformers.eviction import keep  # noqa: E402
from clearhead.definition import eviction as definition  # noqa: E402
from tests.tiny_models import model_of  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*past_key_values.*")
CHOSEN = [[0, 1, 5, 9, 17, 28, 29], [0, 3, 4, 9, 20, 21, 29]]  # of two key heads, 30 keys


def tokens_of(n, sequences=1, seed=0):
    return torch.randint(2, 97, (sequences, n), generator=torch.Generator().manual_seed(seed))


def prefilled(model, tokens):
    with torch.no_grad():
        return model(tokens, use_cache=True).past_key_values


def hidden_by_mask(model, tokens, cache, chosen):
    """Logits of the tokens that a cache has not read, whose heads see only chosen ones before: by a mask of floats."""
    group, read = model.config.num_attention_heads // len(chosen[0]), cache.get_seq_length()
    more = tokens.shape[1] - read
    seen = torch.zeros(len(tokens), len(chosen[0]), more, tokens.shape[1], dtype=torch.bool)
    for sequence, heads in enumerate(chosen):
        for head, keys in enumerate(heads):
            seen[sequence, head, :, keys] = True
    seen[..., read:] = torch.ones(more, more).tril().bool()
    mask = torch.zeros(seen.shape).masked_fill(~seen, -1e30).repeat_interleave(group, 1)
    with torch.no_grad():
        return model(tokens[:, read:], past_key_values=cache, attention_mask=mask).logits


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2"])
@pytest.mark.parametrize("attention", ["eager", "sdpa", "clearhead"])
@pytest.mark.parametrize("sequences", [1, 2])
def test_a_model_goes_on_as_if_the_others_were_hidden(name, attention, sequences):
    heads = 4 if name == "gpt2" else 2
    chosen = np.array([(CHOSEN * 2)[:heads], (CHOSEN[::-1] * 2)[:heads]][:sequences])
    tokens = tokens_of(36, sequences)
    plain = model_of(name)
    wanted = hidden_by_mask(plain, tokens, prefilled(plain, tokens[:, :30]), chosen.tolist())
    model = model_of(name, attention)
    cache = prefilled(model, tokens[:, :30])
    keep(cache, [chosen, torch.from_numpy(chosen)])
    assert cache.get_seq_length() == 30
    with torch.no_grad():
        first = model(tokens[:, 30:33], past_key_values=cache).logits
        later = [model(tokens[:, n : n + 1], past_key_values=cache).logits for n in (33, 34, 35)]
    torch.testing.assert_close(torch.cat([first, *later], 1), wanted, atol=2e-5, rtol=2e-5)
    assert cache.layers[1].keys.shape[2] == len(CHOSEN[0]) + 6


@pytest.mark.parametrize("attention", ["sdpa", "clearhead"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_generate_goes_on(attention, dtype):
    model, tokens = model_of("llama", attention).to(dtype), tokens_of(30)
    plain = model.generate(tokens, max_new_tokens=8, do_sample=False)
    cache = prefilled(model, tokens[:, :-1])
    keep(cache, [np.ones(29, bool)] * 2)
    assert torch.equal(model.generate(tokens, past_key_values=cache, max_new_tokens=8, do_sample=False), plain)
    cache = prefilled(model, tokens[:, :-1])
    keep(cache, [CHOSEN[0][:-1]] * 2)
    text, step = tokens, tokens[:, -1:]
    for n in range(8):
        with torch.no_grad():
            place = torch.tensor([[29 + n]])
            step = model(step, past_key_values=cache, position_ids=place).logits[:, -1:].argmax(-1)
        text = torch.cat([text, step], 1)
    cache = prefilled(model, tokens[:, :-1])
    keep(cache, [CHOSEN[0][:-1]] * 2)
    assert torch.equal(model.generate(tokens, past_key_values=cache, max_new_tokens=8, do_sample=False), text)


@pytest.mark.parametrize("how", ["watch", "output_attentions"])
def test_the_recipe(how):
    model, tokens = model_of("qwen3", "clearhead"), tokens_of(40)
    with torch.no_grad():
        if how == "watch":
            with clearhead.watch(model) as seen:
                cache = model(tokens[:, :-1], use_cache=True).past_key_values
            scores = [eviction.snapkv(seen.layer(n).weights, window=4, v=seen.layer(n).values) for n in seen.layers()]
        else:
            done = model(tokens[:, :-1], use_cache=True, output_attentions=True)
            cache = done.past_key_values
            scores = [
                eviction.snapkv(w, window=4, v=layer.values.numpy())
                for w, layer in zip(done.attentions, cache.layers, strict=True)
            ]
    matrices = model_of("qwen3")(tokens[:, :-1], output_attentions=True).attentions
    for score, a, layer in zip(scores, matrices, cache.layers, strict=True):
        a, v = a.detach().numpy().astype(float), layer.values.numpy().astype(float)
        wanted = definition.snapkv(a, 2, v, window=4, kernel=7, pool="max")
        np.testing.assert_allclose(score, wanted[0] if how == "watch" else wanted, rtol=1e-4)
    keep(cache, [eviction.most(score, share=0.5, first=2) for score in scores])
    assert model.generate(tokens, past_key_values=cache, max_new_tokens=5, do_sample=False).shape == (1, 45)
    assert [layer.keys.shape[2] for layer in cache.layers] == [25, 25]  # the last token is not fed back


def test_it_is_cut_again_cropped_and_begun_again():
    model, tokens = model_of("llama", "sdpa"), tokens_of(36)
    cache = prefilled(model, tokens[:, :30])
    keep(cache, [CHOSEN] * 2)
    with torch.no_grad():
        model(tokens[:, 30:33], past_key_values=cache)
    keep(cache, [[[0, 2, 5, 7, 8, 9]] * 2] * 2)  # by place now: 7 to 9 are the new ones
    left = [[heads[n] for n in (0, 2, 5)] + [30, 31, 32] for heads in CHOSEN]
    whole = prefilled(model, tokens[:, :30])
    hidden_by_mask(model, tokens[:, :33], whole, [CHOSEN])
    wanted = hidden_by_mask(model, tokens, whole, [left])
    with torch.no_grad():
        found = model(tokens[:, 33:], past_key_values=cache).logits
        torch.testing.assert_close(found, wanted, atol=2e-5, rtol=2e-5)
        cache.crop(-3)
        assert (cache.get_seq_length(), cache.layers[0].keys.shape[2]) == (33, 6)
        torch.testing.assert_close(model(tokens[:, 33:], past_key_values=cache).logits, found)
        cache.reset()
        assert cache.get_seq_length() == 0
        fresh = model(tokens[:, :5], past_key_values=cache).logits
        torch.testing.assert_close(fresh, model(tokens[:, :5]).logits)


def test_what_cannot_be_cut_is_told_and_nothing_is_lost():
    tokens = tokens_of(30)
    model = model_of("llama", "sdpa")
    cache = prefilled(model, tokens)
    before = [layer.keys for layer in cache.layers]
    for keys, text in (
        ([CHOSEN], "1 choices of keys do not fit a cache of 2 layers"),
        ([CHOSEN, [0, 1]], r"keep \[2, 7\] keys"),
        ([CHOSEN, [0, 30]], "key 30"),
        ([CHOSEN, [[0, 1]] * 3], "2 key heads"),
        ([CHOSEN, [0, 0]], "twice"),
    ):
        with pytest.raises(InputError, match=text):
            keep(cache, keys)
        assert all(a is layer.keys for a, layer in zip(before, cache.layers, strict=True))
    for name in ("mistral", "gemma2"):
        sliding = prefilled(model_of(name, "eager"), tokens)
        with pytest.raises(InputError, match="DynamicSlidingWindowLayer"):
            keep(sliding, [[0, 1]] * 2)
    with pytest.raises(InputError, match="empty"):
        keep(transformers.DynamicCache(config=model.config), [[0], [0]])
