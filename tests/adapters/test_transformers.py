"""transformers models give on clearhead what they give on torch's own attention: logits, texts, weights."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import clearhead  # noqa: E402
import clearhead.adapters.transformers as adapter  # noqa: E402
from clearhead.adapters.torch.weights import LazyWeights  # noqa: E402
from clearhead.adapters.transformers.intervals import intervals_of  # noqa: E402
from clearhead.adapters.transformers.mask import Pattern  # noqa: E402
from clearhead.errors import DtypeError, InputError, ShapeError  # noqa: E402
from clearhead.rules.masks import visible  # noqa: E402
from tests.tiny_models import CONFIGS, config_of, model_of  # noqa: E402

PEER = {"gemma2": "eager", "gpt_oss": "eager"}  # sdpa knows neither softcap nor sinks


@pytest.fixture(scope="module", params=list(CONFIGS))
def models(request):
    """The same random weights on torch's own attention and on clearhead."""
    peer = model_of(request.param, PEER.get(request.param, "sdpa"))
    ours = copy.deepcopy(peer)
    ours.set_attn_implementation("clearhead")
    assert ours.config._attn_implementation == "clearhead"
    return peer, ours


@pytest.fixture
def tokens():
    torch.manual_seed(1)
    return torch.randint(3, 97, (3, 21))


def padded(tokens, *left):
    mask = torch.ones_like(tokens)
    for row, count in enumerate(left):
        mask[row, :count] = 0
    return mask


@torch.no_grad()
def close(models, tokens, mask=None, **options):
    """Logits agree wherever there is a token."""
    peer, ours = (model(tokens, attention_mask=mask, **options).logits for model in models)
    real = torch.ones_like(tokens).bool() if mask is None else mask.bool()
    torch.testing.assert_close(ours[real], peer[real], rtol=2e-5, atol=2e-5)


def test_logits(models, tokens):
    close(models, tokens)


@pytest.mark.parametrize("left", [(5, 0, 9), (5, 5, 0), (20, 3, 3)])
def test_logits_of_padded_batches(models, tokens, left):
    close(models, tokens, padded(tokens, *left))


def test_logits_with_padding_behind(models, tokens):
    close(models, tokens, padded(tokens, 4, 0, 9).flip(1))


def test_logits_with_padding_in_between(models, tokens):
    mask = padded(tokens, 2, 0, 0)
    mask[1, 7:9] = 0
    close(models, tokens, mask)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_greedy_text(models, tokens, cache):
    mask = padded(tokens, 5, 0, 9)
    options = {} if cache == "dynamic" else {"cache_implementation": "static", "disable_compile": True}
    texts = [
        model.generate(tokens, attention_mask=mask, max_new_tokens=14, do_sample=False, **options) for model in models
    ]
    assert texts[0].tolist() == texts[1].tolist()


@torch.no_grad()
def test_weights_are_the_eager_ones(models, tokens):
    peer, ours = models
    eager = copy.deepcopy(peer)
    eager.set_attn_implementation("eager")
    mask = padded(tokens, 5, 0, 9)
    expected = eager(tokens, attention_mask=mask, output_attentions=True).attentions
    found = ours(tokens, attention_mask=mask, output_attentions=True).attentions
    assert len(found) == len(expected) == 2
    for layer in range(2):
        assert isinstance(found[layer], LazyWeights)
        assert isinstance(found[layer].weights, clearhead.Weights)
        for row in range(3):
            first = int((mask[row] == 0).sum())
            a, b = np.asarray(found[layer][row])[:, first:], expected[layer][row, :, first:].numpy()
            np.testing.assert_allclose(a, b, atol=2e-5)
            assert (np.asarray(found[layer][row])[:, :first] == 0).all()


@torch.no_grad()
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_weights_of_each_step_stay_as_they_were(models, tokens, cache):
    options = {} if cache == "dynamic" else {"cache_implementation": "static", "disable_compile": True}
    done = models[1].generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=4,
        do_sample=False,
        output_attentions=True,
        return_dict_in_generate=True,
        **options,
    )
    assert [step[0].shape[2] for step in done.attentions] == [21, 1, 1, 1]
    whole = models[1](done.sequences[:, :-1], output_attentions=True).attentions
    for number, step in enumerate(done.attentions[1:]):
        for layer in range(2):
            row = np.asarray(step[layer])[:, :, 0]
            expected = np.asarray(whole[layer])[:, :, 21 + number, : 22 + number][..., -row.shape[-1] :]
            np.testing.assert_allclose(row, expected, atol=2e-5)


@torch.no_grad()
def test_packed_documents(tokens):
    config = config_of("llama")
    peer = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    ours = copy.deepcopy(peer)
    ours.set_attn_implementation("clearhead")
    places = torch.cat([torch.arange(n) for n in (8, 1, 12)])[None].expand(3, -1)
    close((peer, ours), tokens, position_ids=places, use_cache=False)


@torch.no_grad()
@pytest.mark.parametrize("kind", [torch.bool, torch.float32])
def test_a_table_of_the_users_own(tokens, kind):
    config = config_of("llama")
    peer = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    ours = copy.deepcopy(peer)
    ours.set_attn_implementation("clearhead")
    torch.manual_seed(2)
    table = (torch.rand(3, 1, 21, 21) < 0.5) | torch.eye(21, dtype=torch.bool)
    if kind != torch.bool:
        table = torch.zeros(table.shape).masked_fill(~table, float("-inf"))
    a, b = (model(tokens, attention_mask=table).logits for model in (peer, ours))
    torch.testing.assert_close(a, b, rtol=2e-5, atol=2e-5)


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-12), (torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_other_dtypes(tokens, dtype, error):
    config = config_of("llama")
    peer = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=dtype).eval()
    ours = copy.deepcopy(peer)
    ours.set_attn_implementation("clearhead")
    a, b = (model(tokens).logits for model in (peer, ours))
    assert b.dtype == dtype
    torch.testing.assert_close(a, b, rtol=error, atol=error)


def layer_like(**options):
    module = torch.nn.Module()
    module.config = config_of("llama")
    for name, value in options.items():
        setattr(module, name, value)
    return module


@torch.no_grad()
def test_a_padded_sequence_has_the_bits_it_has_alone():
    torch.manual_seed(3)
    q, k, v = (torch.randn(2, heads, 300, 16) for heads in (4, 2, 2))
    padding = torch.ones(2, 300, dtype=torch.bool)
    padding[1, :137] = False
    mask = adapter.mask_forward(2, 300, 300, attention_mask=padding)
    together, _ = adapter.attention_forward(layer_like(), q, k, v, mask)
    alone = clearhead.attention(*(x[1, :, 137:].numpy() for x in (q, k, v)))
    assert np.array_equal(together[1, 137:].numpy().transpose(1, 0, 2), alone)
    assert (together[1, :137] == 0).all()


def test_a_mask_takes_no_memory_whatever_its_size():
    mask = adapter.mask_forward(2, 40_000, 40_000, attention_mask=torch.ones(2, 40_000, dtype=torch.bool))
    assert mask.shape == (2, 1, 40_000, 40_000)
    for same in (mask.contiguous(), mask[:, :, :, :40_000], mask.to("cpu"), mask.to(torch.bool), mask.detach()):
        assert same.pattern is mask.pattern  # type: ignore[attr-defined]
    assert mask.known is None  # type: ignore[attr-defined]


@torch.no_grad()
def test_a_model_that_works_on_its_mask_gets_transformers_own():
    padding = torch.ones(2, 7, dtype=torch.bool)
    padding[1, :3] = False
    mask = adapter.mask_forward(2, 7, 7, attention_mask=padding)
    table = MASKS.sdpa_mask(2, 7, 7, attention_mask=padding, allow_is_causal_skip=False)
    q = torch.randn(2, 2, 7, 16)
    expected = torch.nn.functional.scaled_dot_product_attention(q, q, q, table & torch.eye(7, dtype=torch.bool))
    found = adapter.attention_forward(layer_like(), q, q, q, mask & torch.eye(7, dtype=torch.bool))[0]
    real = padding[:, :, None, None].expand_as(found)
    torch.testing.assert_close(found[real], expected.transpose(1, 2)[real])
    some = adapter.attention_forward(layer_like(), q[:, :, -2:], q, q, mask[:, :, -2:])[0]
    whole = adapter.attention_forward(layer_like(), q, q, q, mask)[0]
    torch.testing.assert_close(some, whole[:, -2:])
    mask[0, 0, 6, 0] = False
    changed = adapter.attention_forward(layer_like(), q, q, q, mask)[0]
    assert (changed[0, 6] != whole[0, 6]).all()
    torch.testing.assert_close(changed[:, :6], whole[:, :6])


MASKS = transformers.masking_utils
TYPES = torch.tensor([[0, 1, 1, 2, 2, 2, 0, 1, 1, 2, 2, 2, 0, 1, 1, 2, 2], [1] * 9 + [0] * 8])
PATTERNS = {
    "causal": MASKS.causal_mask_function,
    "window": MASKS.sliding_window_causal_mask_function(5),
    "chunks": MASKS.chunked_causal_mask_function(4, torch.tensor([0, 3])),
    "both ways": MASKS.sliding_window_bidirectional_mask_function(3),
    "full": MASKS.bidirectional_mask_function,
    "prefix": MASKS.or_masks(MASKS.causal_mask_function, lambda batch, head, query, key: key < 4),
    "types": MASKS.or_masks(
        MASKS.causal_mask_function, lambda batch, head, query, key: TYPES[batch, query] == TYPES[batch, key]
    ),
    "images": MASKS.or_masks(
        MASKS.causal_mask_function, MASKS.blockwise_overlay(torch.tensor([[-1, -1] + [3] * 6 + [-1] * 9] * 2))
    ),
    "images alone": MASKS.blockwise_overlay(torch.tensor([[-1, 0] + [3] * 6 + [2] * 9] * 2)),
    "a model's own": lambda batch, head, query, key: (query - key < 6) & (key - query < 3) & (TYPES[batch, key] != 0),
}


@pytest.mark.parametrize("function", PATTERNS.values(), ids=PATTERNS)
@pytest.mark.parametrize("padding", [None, (0, 5), (3, 3), (-4, 2)])
@pytest.mark.parametrize(("queries", "first_key"), [(17, 0), (5, 0), (5, 3)])
def test_patterns_mean_what_transformers_means(function, padding, queries, first_key):
    truth = None
    if padding:
        truth = np.ones((2, 17), bool)
        for row, count in enumerate(padding):
            truth[row, slice(None, count) if count > 0 else slice(count, None)] = count == 0
    keys = 17 - first_key
    pattern = Pattern(2, queries, keys, 17 - queries, first_key, function, truth)
    expected = pattern.row_seen(np.arange(queries))[:, 0].numpy()
    found = np.zeros((2, queries, keys), bool)
    for part in pattern.parts:
        rows, columns = np.arange(queries)[part.queries], np.arange(keys)[part.keys]
        for row in np.arange(2)[part.batch]:
            own = visible(part.mask, len(rows), len(columns), lead=(2, 1))
            own = own[row - (part.batch.start or 0), 0] if own.ndim == 4 else own
            found[row][np.ix_(rows, columns)] = own
    assert np.array_equal(found, expected)
    shown = intervals_of(pattern)
    names = {"causal", "window", "both ways", "full"}
    assert (shown is not None) == any(PATTERNS[name] is function for name in names)
    if shown is not None:
        for row in range(2):
            own = shown.table(row, pattern.stop if shown.tokens is None else shown.tokens.shape[1])[0]
            assert np.array_equal(own, expected[row, :, : own.shape[1]])
            assert not expected[row, :, own.shape[1] :].any()


@pytest.mark.parametrize("padding", [0, 4])
def test_packed_documents_are_intervals(padding):
    ids = torch.tensor([[0] * 5 + [1] * 3 + [2] * 9, [0] * 4 + [1] * 13])
    function = MASKS.and_masks(MASKS.causal_mask_function, MASKS.packed_sequence_mask_function(ids))
    truth = np.arange(17) < np.array([[17], [17 - padding]])
    pattern = Pattern(2, 17, 17, 0, 0, function, truth)
    shown, expected = intervals_of(pattern), pattern.row_seen(np.arange(17))[:, 0].numpy()
    assert np.array_equal(np.stack([shown.table(row, 17)[0] for row in range(2)]), expected)


def test_intervals_other_than_transformers_mask_are_not_taken():
    """As if the translation of a mask function were wrong."""
    pattern = Pattern(1, 17, 17, 0, 0, MASKS.causal_mask_function, None)
    object.__setattr__(pattern, "row_seen", lambda rows: torch.ones(1, 1, len(rows), 17, dtype=torch.bool))
    assert intervals_of(pattern) is None


def test_errors_say_what_to_change():
    q = torch.ones(1, 2, 3, 16)
    mask = adapter.mask_forward(1, 3, 3)
    with pytest.raises(DtypeError, match=r"attention_mask of shape \(1, 1, 3, 3\) is torch.int64: give torch.bool"):
        adapter.attention_forward(layer_like(), q, q, q, torch.ones(1, 1, 3, 3, dtype=torch.int64).tril())
    with pytest.raises(DtypeError, match=r"float32, torch.float32 and torch.bfloat16: cast the model to one dtype"):
        adapter.attention_forward(layer_like(), q, q, q.bfloat16(), mask)
    with pytest.raises(InputError, match="compute with sinks, which clearhead does not support"):
        adapter.attention_forward(layer_like(), q, q, q, mask, sinks=torch.zeros(1, 2, 3, 1))
    with pytest.raises(InputError, match="2 queries and 3 keys have no mask"):
        adapter.attention_forward(layer_like(), q[:, :, :2], q, q, None)
    with pytest.raises(InputError, match="do not end within 3 keys"):
        _ = Pattern(1, 2, 3, 2, 0, MASKS.causal_mask_function, None).stop


@torch.no_grad()
def test_a_mask_that_cannot_be_read_is_a_table():
    def strange(batch, head, query, key):
        return query >= (2 if bool((key >= 0).all()) else 0)

    with pytest.warns(UserWarning, match=r"uses this model's mask as a table .*strange cannot become a formula"):
        mask = adapter.mask_forward(1, 4, 4, mask_function=strange)
    assert torch.equal(mask, MASKS.sdpa_mask(1, 4, 4, mask_function=strange, allow_is_causal_skip=False))


def test_keys_that_a_model_chooses():
    torch.manual_seed(0)
    q, chosen = torch.randn(2, 2, 6, 16), torch.randint(0, 6, (2, 6, 3), dtype=torch.int32)
    seen = torch.zeros(2, 6, 6, dtype=torch.bool).scatter(-1, chosen.long(), True)[:, None]
    for mask in (adapter.mask_forward(2, 6, 6), torch.ones(6, 6, dtype=torch.bool).tril()[None, None]):
        found = adapter.attention_forward(layer_like(), q, q, q, mask, indices=chosen)[0].transpose(1, 2)
        both = seen & torch.ones(6, 6, dtype=torch.bool).tril()
        expected = torch.nn.functional.scaled_dot_product_attention(q, q, q, both)
        torch.testing.assert_close(found, expected.nan_to_num(0))


@pytest.mark.parametrize("left", [(0, 0, 0), (5, 0, 9)])
def test_gradients(models, tokens, left):
    mask, found = padded(tokens, *left), []
    told = mask.bool() & mask.roll(1, 1).bool()  # the first token would be foretold by padding
    for model in models:
        model.zero_grad()
        loss = model(tokens, attention_mask=mask, labels=tokens.masked_fill(~told, -100)).loss
        loss.backward()
        found.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert any("sinks" in name for name in found[0]) == (models[0].config.model_type == "gpt_oss")
    for name, expected in found[0].items():
        size = float(expected.abs().max())
        torch.testing.assert_close(found[1][name], expected, rtol=1e-3, atol=1e-4 * size + 1e-9, msg=name)


def test_gradients_with_weights_and_checkpoints(tokens):
    model = transformers.AutoModelForCausalLM.from_config(config_of("llama"), attn_implementation="clearhead")
    model(tokens, labels=tokens, output_attentions=True).loss.backward()
    expected = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    model.gradient_checkpointing_enable()
    model.train()
    model(tokens, labels=tokens, use_cache=False).loss.backward()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-5, atol=1e-7)


RUNS = [(0, 0, 0), (5, 0, 9), (20, 3, 3), (-6, 0, 2), (-6, -6, -6)]


def textbook(q, k, v, seen, bias=None, cap=None):
    """Attention as torch differentiates it; 0 where nothing is seen."""
    s = q @ k.repeat_interleave(q.shape[1] // k.shape[1], 1).mT / 4
    s = s if cap is None else cap * torch.tanh(s / cap)
    s = (s if bias is None else s + bias).masked_fill(~seen, -torch.inf)
    blind = ~seen.any(-1, keepdim=True)
    weights = s.masked_fill(blind, 0).softmax(-1).masked_fill(blind, 0)
    return (weights @ v.repeat_interleave(q.shape[1] // v.shape[1], 1)).transpose(1, 2), weights


@pytest.mark.parametrize("left", RUNS)
@pytest.mark.parametrize("biased", [False, True])
def test_second_derivatives_of_padded_batches(left, biased):
    torch.manual_seed(0)
    q, k, v = (torch.randn(3, heads, 21, 16, dtype=torch.float64, requires_grad=True) for heads in (4, 2, 2))
    bias = torch.randn(1, 4, 21, 21, dtype=torch.float64, requires_grad=biased)
    padding = torch.ones(3, 21, dtype=torch.bool)
    for row, count in enumerate(left):
        padding[row, slice(None, count) if count > 0 else slice(count, None) if count else slice(0)] = False
    mask = adapter.mask_forward(3, 21, 21, attention_mask=padding)
    ours = adapter.attention_forward(layer_like(), q, k, v, mask, softcap=3.0, position_bias=bias if biased else None)[
        0
    ]
    seen = padding[:, None, None] & torch.ones(21, 21, dtype=torch.bool).tril()
    theirs = textbook(q, k, v, seen, bias if biased else None, 3.0)[0]
    real = padding[:, :, None, None] if min(left) >= 0 else torch.ones(())  # 0 where nothing is seen, either way
    operands = [q, k, v, *([bias] if biased else [])]
    found = []
    for y in (ours, theirs):
        first = torch.autograd.grad((y * real).square().sum(), operands, create_graph=True)
        second = torch.autograd.grad(sum(x.square().sum() for x in first), operands)
        found.append((*first, *second))
    torch.testing.assert_close(*found)


def test_dropout_drops_what_it_says():
    torch.manual_seed(0)
    q, k = torch.randn(2, 4, 9, 16), torch.randn(2, 2, 9, 16)
    mask = adapter.mask_forward(2, 9, 9, attention_mask=padded(torch.zeros(2, 9), 3, 0).bool())
    v = torch.ones(2, 2, 9, 4)
    means = torch.stack(
        [adapter.attention_forward(layer_like(), q, k, v, mask, dropout=0.25)[0] for _ in range(200)]
    ).mean(0)
    assert (means[0, :3] == 0).all()
    torch.testing.assert_close(means[1].mean(), torch.tensor(1.0), atol=0.02, rtol=0)


def test_weights_carry_gradients(tokens):
    model = transformers.AutoModelForCausalLM.from_config(config_of("llama"), attn_implementation="eager")
    mask, found = padded(tokens, 5, 0, 9), []
    for kind in ("eager", "clearhead"):
        model.set_attn_implementation(kind)
        model.zero_grad()
        weights = model(tokens, attention_mask=mask, output_attentions=True).attentions
        real = mask[:, None, :, None].bool()
        sum((torch.stack(weights)[n] * real).square().sum() for n in range(2)).backward()
        found.append({name: x.grad for name, x in model.named_parameters() if x.grad is not None})
    for name, expected in found[0].items():
        torch.testing.assert_close(found[1][name], expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-3)


@torch.no_grad()
def test_compiling_goes_around_the_kernels(tokens):
    model = transformers.AutoModelForCausalLM.from_config(config_of("llama"), attn_implementation="clearhead").eval()
    mask = padded(tokens, 5, 0, 9)
    expected = model(tokens, attention_mask=mask, use_cache=False).logits
    compiled = torch.compile(model, backend="eager")
    for _ in range(2):
        found = compiled(tokens, attention_mask=mask, use_cache=False).logits
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


STRANGERS = {
    "Bloom": (transformers.BloomConfig, {"n_layer": 2, "n_head": 4, "hidden_size": 64, "vocab_size": 97}),
    "Mpt": (transformers.MptConfig, {"n_layers": 2, "n_heads": 4, "d_model": 64, "vocab_size": 97}),
    "XGLM": (transformers.XGLMConfig, {"num_layers": 2, "attention_heads": 4, "d_model": 64, "vocab_size": 97}),
}


@torch.no_grad()
@pytest.mark.parametrize("name", STRANGERS)
def test_models_with_attention_of_their_own_are_refused(name, tokens):
    kind, sizes = STRANGERS[name]
    model = transformers.AutoModelForCausalLM.from_config(kind(**sizes), attn_implementation="clearhead").eval()
    with pytest.raises(InputError, match=f"{name}Attention computes attention by code of its own"):
        model(tokens, attention_mask=padded(tokens, 5, 0, 9))


def test_autocast_makes_a_promoted_model_one_dtype(tokens):
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config_of("llama")).eval()
    losses = []
    for kind in ("sdpa", "clearhead"):
        model.set_attn_implementation(kind)
        with torch.autocast("cpu", torch.bfloat16):
            losses.append(model(tokens, labels=tokens, output_attentions=kind == "clearhead"))
    assert losses[1].attentions[0].dtype is torch.bfloat16
    torch.testing.assert_close(losses[1].loss, losses[0].loss, rtol=1e-3, atol=1e-3)


T5 = {"vocab_size": 97, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}


@pytest.mark.parametrize("left", RUNS)
@pytest.mark.parametrize("kind", ["T5", "UMT5", "MT5"])
def test_a_position_bias_is_cut_as_its_batch_is(kind, left, tokens):
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**T5, dropout_rate=0.0)
    model = getattr(transformers, f"{kind}EncoderModel")(config).double()
    mask, found = torch.ones_like(tokens), []
    for row, count in enumerate(left):
        mask[row, slice(None, count) if count > 0 else slice(count, None) if count else slice(0)] = 0
    for attention in ("sdpa", "clearhead"):
        model.set_attn_implementation(attention)
        model.zero_grad()
        output = model(tokens, attention_mask=mask)[0][mask.bool()]
        output.pow(3).sum().backward()
        gradients = {name: x.grad.clone() for name, x in model.named_parameters() if x.grad is not None}
        found.append((output.detach(), gradients))
    assert any("relative_attention_bias" in name for name in found[1][1])
    torch.testing.assert_close(found[1], found[0])


@torch.no_grad()
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_text_of_an_encoder_and_a_decoder_with_position_biases(cache, tokens):
    torch.manual_seed(0)
    config = transformers.T5Config(**T5, decoder_start_token_id=0, eos_token_id=None, pad_token_id=0)
    model, texts = transformers.T5ForConditionalGeneration(config).eval(), []
    options = {} if cache == "dynamic" else {"cache_implementation": "static", "disable_compile": True}
    for attention in ("sdpa", "clearhead"):
        model.set_attn_implementation(attention)
        mask = padded(tokens, 5, 0, 9).flip(1)
        texts.append(model.generate(tokens, attention_mask=mask, max_new_tokens=9, do_sample=False, **options))
    assert texts[0].tolist() == texts[1].tolist()


def followed(model, tokens, mask):
    """What torch's transforms make of a model, each as a function."""
    parameters = {name: x.detach() for name, x in model.named_parameters()}

    def loss(parameters, tokens, mask):
        given = {"input_ids": tokens, "attention_mask": mask, "use_cache": False}
        logits = torch.func.functional_call(model, parameters, (), given).logits
        return (logits * mask[..., None]).square().mean()

    def exported():
        given = {"input_ids": tokens, "attention_mask": mask, "use_cache": False}
        program = torch.export.export(model, (), given, strict=False).module()
        return program(**given | {"attention_mask": mask.flip(0)}).logits[mask.flip(0).bool()]

    def fake():
        from torch._subclasses.fake_tensor import FakeTensorMode

        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            given = {"input_ids": mode.from_tensor(tokens), "attention_mask": mode.from_tensor(mask)}
            return list(model(**given, use_cache=False).logits.shape)

    def meta():
        given = {"input_ids": tokens.to("meta"), "attention_mask": mask.to("meta"), "use_cache": False}
        return list(copy.deepcopy(model).to("meta")(**given).logits.shape)

    def mapped():
        one = torch.vmap(lambda t, m: loss(parameters, t[None], m[None]))
        return one(tokens, mask)

    return {
        "export": exported, "fake": fake, "meta": meta, "vmap": mapped,
        "func.grad": lambda: torch.func.grad(loss)(parameters, tokens, mask)["model.layers.0.self_attn.q_proj.weight"],
        "a gradient each": lambda: torch.vmap(
            lambda t, m: torch.func.grad(loss)(parameters, t[None], m[None])["model.layers.1.self_attn.k_proj.weight"]
        )(tokens, mask),
        "jvp": lambda: torch.func.jvp(lambda p: loss(p, tokens, mask), (parameters,), (parameters,))[1],
    }  # fmt: skip


@pytest.mark.parametrize("way", ["export", "fake", "meta", "vmap", "func.grad", "a gradient each", "jvp"])
def test_what_torch_makes_of_models(way, tokens):
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config_of("llama")).eval()
    mask, found = padded(tokens, 5, 0, 9), []
    for attention in ("sdpa" if way in ("export", "fake", "func.grad") else "eager", "clearhead"):
        model.set_attn_implementation(attention)
        with torch.no_grad() if way == "export" else torch.enable_grad():
            found.append(followed(model, tokens, mask)[way]())
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-5)


def test_fullgraph_says_why_not(tokens):
    model = transformers.AutoModelForCausalLM.from_config(config_of("llama"), attn_implementation="clearhead").eval()
    with pytest.raises(Exception, match="compile without fullgraph=True"):
        torch.compile(model, backend="eager", fullgraph=True)(tokens, use_cache=False)
    torch.compiler.reset()


@pytest.mark.parametrize("left", [(0, 0, 0), (5, 0, 9)])
@pytest.mark.parametrize("touch", ["nothing", "grad", "hook", "loss"])
def test_losses_have_gradients_by_weights(models, tokens, left, touch):
    mask, found = padded(tokens, *left), []
    told = mask.bool() & mask.roll(1, 1).bool()
    real = mask[:, None, :, None] * mask[:, None, None]
    for model, kind in zip(models, ("eager", "clearhead"), strict=True):
        before = model.config._attn_implementation
        model.set_attn_implementation(kind)
        model.zero_grad()
        given = {"attention_mask": mask, "labels": tokens.masked_fill(~told, -100)}
        done = model(tokens, **given, output_attentions=True)
        loss = done.loss
        for weights in done.attentions:
            weights.retain_grad()
            if touch == "hook":
                weights.register_hook(lambda d: 2 * d)
        if touch == "loss":
            loss = loss + sum((w * mask[:, None, :, None]).square().sum() for w in done.attentions)
        loss.backward()
        by_weights = [] if touch == "nothing" else [w.grad * real for w in done.attentions]
        found.append((by_weights, {name: x.grad for name, x in model.named_parameters()}))
        model.set_attn_implementation(before)
    for a, b in zip(found[1][0], found[0][0], strict=True):
        torch.testing.assert_close(torch.as_tensor(np.asarray(a)), b, rtol=1e-3, atol=1e-4 * float(b.abs().max()))
    for name, expected in found[0][1].items():
        size = float(expected.abs().max())
        torch.testing.assert_close(found[1][1][name], expected, rtol=1e-3, atol=1e-4 * size + 1e-9, msg=name)


def test_second_derivatives_beside_weights():
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, heads, 9, 16, dtype=torch.float64, requires_grad=True) for heads in (4, 2, 2))
    bias = torch.randn(1, 4, 9, 9, dtype=torch.float64, requires_grad=True)
    mask, seen = adapter.mask_forward(2, 9, 9), torch.ones(9, 9, dtype=torch.bool).tril()
    ours = adapter.attention_forward(layer_like(), q, k, v, mask, position_bias=bias, output_attentions=True)
    theirs, found = textbook(q, k, v, seen, bias), []
    for output, weights in (ours, theirs):
        loss = output.square().sum() + (weights * weights.cos()).sum()
        first = torch.autograd.grad(loss, (q, k, v, bias, weights), create_graph=True)
        second = torch.autograd.grad(sum(x.square().sum() for x in first), (q, k, v, bias))
        found.append((*first, *second))
    torch.testing.assert_close(*found)


def test_tables_that_do_not_fit_are_told():
    q = torch.ones(2, 2, 3, 16)
    for name, table in (("attention_mask", torch.ones(2, 1, 2, 3, dtype=torch.bool)), ("position_bias", q[..., :5])):
        options = {"attention_mask": None} | {name: table}
        with pytest.raises(
            ShapeError, match=rf"{name} has shape .*: give \(batch, heads, queries, keys\) = \(2, 2, 3, 3"
        ):
            adapter.attention_forward(layer_like(), q, q, q, **options)
    for shape in ((3, 9), (9,), (2, 9, 9)):
        with pytest.raises(ShapeError, match=r"attention_mask has shape \(.*: give \(2, positions\), True at tokens"):
            adapter.mask_forward(2, 9, 9, attention_mask=torch.ones(shape))


@torch.no_grad()
def test_a_model_that_adds_its_mask_itself_gets_numbers(tokens):
    """GIT's text layers compute attention by themselves, its picture's layers by the interface."""
    torch.manual_seed(0)
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
    config = transformers.GitConfig(**small, vocab_size=97, vision_config=small | {"image_size": 16, "patch_size": 8})
    model, found = transformers.GitForCausalLM._from_config(config, attn_implementation="eager").eval(), []
    for name, parameter in model.named_parameters():
        if "query" in name or "key" in name:
            parameter.mul_(20)
    for kind in ("eager", "clearhead"):
        model.set_attn_implementation(kind)
        found.append(model(tokens, attention_mask=padded(tokens, 5, 0, 9)).logits)
    real = padded(tokens, 5, 0, 9).bool()
    torch.testing.assert_close(found[1][real], found[0][real], rtol=1e-4, atol=1e-5)
