"""transformers models give on clearhead what they give on torch's own attention: logits, texts, weights."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import clearhead  # noqa: E402
import clearhead.adapters.transformers as adapter  # noqa: E402
from clearhead.adapters.transformers.mask import Pattern, read  # noqa: E402
from clearhead.errors import InputError  # noqa: E402
from clearhead.rules.masks import visible  # noqa: E402

SIZES = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}
CONFIGS = {
    "llama": (transformers.LlamaConfig, SIZES),
    "qwen2": (transformers.Qwen2Config, SIZES),
    "qwen3": (transformers.Qwen3Config, SIZES | {"head_dim": 16}),
    "mistral": (transformers.MistralConfig, SIZES | {"sliding_window": 8}),
    "gemma2": (
        transformers.Gemma2Config,
        SIZES | {"head_dim": 16, "sliding_window": 8, "attn_logit_softcapping": 5.0, "query_pre_attn_scalar": 16},
    ),
    "gpt_oss": (
        transformers.GptOssConfig,
        SIZES | {"head_dim": 16, "sliding_window": 8, "num_local_experts": 2, "num_experts_per_tok": 1},
    ),
    "gpt2": (
        transformers.GPT2Config,
        {"vocab_size": 97, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128, "pad_token_id": 0}
        | {"bos_token_id": 1, "eos_token_id": None, "attn_pdrop": 0.0},
    ),
}
PEER = {"gemma2": "eager", "gpt_oss": "eager"}  # sdpa knows neither softcap nor sinks


@pytest.fixture(scope="module", params=list(CONFIGS))
def models(request):
    """The same random weights on torch's own attention and on clearhead."""
    kind, sizes = CONFIGS[request.param]
    torch.manual_seed(0)
    peer = transformers.AutoModelForCausalLM.from_config(
        kind(**sizes), attn_implementation=PEER.get(request.param, "sdpa")
    ).eval()
    with torch.no_grad():
        for name, parameter in peer.named_parameters():  # sharper attention than at the start of training
            if "sinks" in name:
                parameter.normal_()
            elif "q_proj" in name or "k_proj" in name or "c_attn" in name:
                parameter.mul_(6)
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
        assert isinstance(found[layer], clearhead.Weights)
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
    config = transformers.LlamaConfig(**SIZES)
    peer = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    ours = copy.deepcopy(peer)
    ours.set_attn_implementation("clearhead")
    places = torch.cat([torch.arange(n) for n in (8, 1, 12)])[None].expand(3, -1)
    close((peer, ours), tokens, position_ids=places, use_cache=False)


@torch.no_grad()
@pytest.mark.parametrize("kind", [torch.bool, torch.float32])
def test_a_table_of_the_users_own(tokens, kind):
    config = transformers.LlamaConfig(**SIZES)
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
    config = transformers.LlamaConfig(**SIZES)
    peer = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=dtype).eval()
    ours = copy.deepcopy(peer)
    ours.set_attn_implementation("clearhead")
    a, b = (model(tokens).logits for model in (peer, ours))
    assert b.dtype == dtype
    torch.testing.assert_close(a, b, rtol=error, atol=error)


def layer_like(**options):
    module = torch.nn.Module()
    module.config = transformers.LlamaConfig(**SIZES)
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


def test_a_mask_takes_one_byte_whatever_its_size():
    mask = adapter.mask_forward(2, 40_000, 40_000, attention_mask=torch.ones(2, 40_000, dtype=torch.bool))
    assert mask.shape == (2, 1, 40_000, 40_000)
    assert mask.untyped_storage().nbytes() == 1
    assert mask.contiguous() is mask


MASKS = transformers.masking_utils
PATTERNS = {
    "causal": MASKS.causal_mask_function,
    "window": MASKS.sliding_window_causal_mask_function(5),
    "chunks": MASKS.chunked_causal_mask_function(4, torch.tensor([0, 3])),
    "both ways": MASKS.sliding_window_bidirectional_mask_function(3),
    "full": MASKS.bidirectional_mask_function,
    "prefix": MASKS.or_masks(MASKS.causal_mask_function, lambda batch, head, query, key: key < 4),
    "images": MASKS.or_masks(
        MASKS.causal_mask_function, MASKS.blockwise_overlay(torch.tensor([[-1, -1] + [3] * 6 + [-1] * 9] * 2))
    ),
}


@pytest.mark.parametrize("function", PATTERNS.values(), ids=PATTERNS)
@pytest.mark.parametrize("padding", [None, (0, 5), (3, 3), (-4, 2)])
def test_patterns_mean_what_transformers_means(function, padding):
    truth = None
    if padding:
        truth = np.ones((2, 17), bool)
        for row, count in enumerate(padding):
            truth[row, slice(None, count) if count > 0 else slice(count, None)] = count == 0
    pattern = Pattern(2, 17, 17, 0, 0, function, truth)
    expected = pattern.row_seen(np.arange(17))[:, 0].numpy()
    found = np.zeros((2, 17, 17), bool)
    for part in pattern.parts:
        rows, columns = np.arange(17)[part.queries], np.arange(17)[part.keys]
        for row in np.arange(2)[part.batch]:
            own = visible(part.mask, len(rows), len(columns), lead=(2, 1))
            own = own[row - (part.batch.start or 0), 0] if own.ndim == 4 else own
            found[row][np.ix_(rows, columns)] = own
    assert np.array_equal(found, expected)


def test_errors_say_what_to_change():
    q = torch.ones(1, 2, 3, 16)
    mask = adapter.mask_forward(1, 3, 3)
    with pytest.raises(InputError, match=r"dropout 0\.1 .* config\.attention_dropout = 0\.0"):
        adapter.attention_forward(layer_like(), q, q, q, mask, dropout=0.1)
    with pytest.raises(InputError, match="has changed the mask"):
        adapter.attention_forward(layer_like(), q, q, q, mask[:, :, :2])
    with pytest.raises(InputError, match=r"on meta: move the model"):
        adapter.attention_forward(layer_like(), *[q.to("meta")] * 3, mask)
    with pytest.raises(InputError, match="cannot become a formula"):
        read(lambda batch, head, query, key: torch.tensor(3)[query] > key, 0, 0)
    with pytest.raises(InputError, match="2 queries and 3 keys came without a mask"):
        adapter.attention_forward(layer_like(), q[:, :, :2], q, q, None)
    with pytest.raises(InputError, match="do not end within 3 keys"):
        _ = Pattern(1, 2, 3, 2, 0, MASKS.causal_mask_function, None).stop


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
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.LlamaConfig(**SIZES), attn_implementation="clearhead"
    )
    model(tokens, labels=tokens, output_attentions=True).loss.backward()
    expected = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    model.gradient_checkpointing_enable()
    model.train()
    model(tokens, labels=tokens, use_cache=False).loss.backward()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-5, atol=1e-7)


def test_a_learned_position_bias_is_refused():
    q, table = torch.ones(1, 2, 3, 16), torch.zeros(1, 2, 3, 3, requires_grad=True)
    with pytest.raises(InputError, match="gradients of a position_bias"):
        adapter.attention_forward(layer_like(), q, q, q, adapter.mask_forward(1, 3, 3), position_bias=table)


@torch.no_grad()
def test_compiling_goes_around_the_kernels(tokens):
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.LlamaConfig(**SIZES), attn_implementation="clearhead"
    ).eval()
    mask = padded(tokens, 5, 0, 9)
    expected = model(tokens, attention_mask=mask, use_cache=False).logits
    compiled = torch.compile(model, backend="eager")
    for _ in range(2):
        found = compiled(tokens, attention_mask=mask, use_cache=False).logits
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
