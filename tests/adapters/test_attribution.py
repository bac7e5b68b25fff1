"""What heads of a model write and add to logits, and gradients by weights, against the model's own numbers."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import clearhead  # noqa: E402
from clearhead import output_gradients  # noqa: E402
from clearhead.adapters.transformers import logit_attribution, output_matrices  # noqa: E402
from clearhead.adapters.transformers.frozen import frozen_norm  # noqa: E402
from clearhead.definition import weights as definition  # noqa: E402
from clearhead.errors import InputError, TrustError  # noqa: E402
from tests.tiny_models import SIZES, model_of  # noqa: E402

NEOX = {key: value for key, value in SIZES.items() if key != "num_key_value_heads"} | {"num_hidden_layers": 2}
OPT = {"vocab_size": 97, "hidden_size": 64, "ffn_dim": 96, "num_attention_heads": 4, "num_hidden_layers": 2} | {
    "max_position_embeddings": 128, "word_embed_proj_dim": 64, "dropout": 0.0, "pad_token_id": 0
}  # fmt: skip
MORE = {
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**NEOX),
    "opt": lambda: transformers.OPTConfig(**OPT),
    "opt, norms behind": lambda: transformers.OPTConfig(**OPT, do_layer_norm_before=False),
    "olmo2": lambda: transformers.Olmo2Config(**SIZES, num_hidden_layers=2),
    "cohere": lambda: transformers.CohereConfig(**SIZES, num_hidden_layers=2, logit_scale=0.5),
    "granite": lambda: transformers.GraniteConfig(**SIZES, num_hidden_layers=2, residual_multiplier=0.3),
    "phi": lambda: transformers.PhiConfig(**SIZES, num_hidden_layers=2),
    "qwen3_next": lambda: transformers.Qwen3NextConfig(
        **SIZES, num_hidden_layers=2, head_dim=16, layer_types=["full_attention"] * 2, mlp_only_layers=[0, 1]
    ),
}
FAMILIES = ["llama", "qwen3", "gemma2", "gpt_oss", "gpt2", *MORE]
GATED = "qwen3_next"  # multiplies heads' outputs before W_O, so that weights and values do not have them


def model_like(name):
    """A model whose norms and biases are not those of the start of training, in float64."""
    torch.manual_seed(0)
    model = (
        transformers.AutoModelForCausalLM.from_config(MORE[name](), attn_implementation="eager").eval()
        if name in MORE
        else model_of(name)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    if name == "gpt_oss":
        model.set_experts_implementation("eager")  # which knows float64
    return model.double()


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    return model_like(request.param)


@pytest.fixture
def ids():
    torch.manual_seed(1)
    return torch.randint(3, 97, (1, 21))


def attention_layers(model):
    """The attention modules, in order."""
    return [module for module in model.modules() if isinstance(getattr(module, "layer_idx", None), int)
            and type(module).__name__.endswith("Attention")]  # fmt: skip


def heard(module, run):
    """What a module took and gave while `run()` ran."""
    found = {}

    def hook(_, args, options, out):
        found["in"] = args[0] if args else options["hidden_states"]
        found["out"] = out[0] if isinstance(out, tuple) else out

    handle = module.register_forward_hook(hook, with_kwargs=True)
    with torch.no_grad():
        run()
    handle.remove()
    return found["in"].numpy(), found["out"].numpy()


@pytest.fixture(scope="module", params=[name for name in FAMILIES if name != GATED])
def ungated(request):
    return model_like(request.param)


def test_heads_add_up_to_what_their_layer_writes(ungated, ids):
    model = ungated
    matrices = output_matrices(model)
    with clearhead.watch(model) as seen, torch.no_grad():
        model(ids)
    for number, module in enumerate(attention_layers(model)):
        layer = seen.layer(number)
        written = clearhead.head_outputs(layer, layer.values, matrices[number])
        _, out = heard(module, lambda: model(ids))
        linear = next(x for name in ("o_proj", "c_proj", "out_proj", "dense") if (x := getattr(module, name, None)))
        bias = 0 if linear.bias is None else linear.bias.detach().numpy()
        np.testing.assert_allclose(written.sum(0) + bias, out[0], atol=1e-5)


@torch.no_grad()
def test_heads_of_an_encoder_add_up_to_what_its_projection_writes(ids):
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=97, hidden_size=64, intermediate_size=96, num_attention_heads=4, num_hidden_layers=2
    )
    model = transformers.BertModel(config).eval()
    with clearhead.watch(model) as seen:
        model(ids)
    matrices = output_matrices(model)
    for number, layer in enumerate(model.encoder.layer):
        dense = layer.attention.output.dense
        _, out = heard(dense, lambda: model(ids))
        shown = seen.layer(number)
        written = clearhead.head_outputs(shown, shown.values, matrices[number])
        np.testing.assert_allclose(written.sum(0) + dense.bias.numpy(), out[0], atol=1e-5)
    with pytest.raises(InputError, match="BertModel has no linear unembedding"):
        logit_attribution(model, ids, 5)


def test_text_is_not_taken_for_ids(model):
    with pytest.raises(InputError, match=r"'a text' are text: give tokenizer"):
        logit_attribution(model, "a text", 5)


@pytest.mark.parametrize("against", [None, 9])
def test_all_parts_add_up_to_the_logit(model, ids, against):
    parts = logit_attribution(model, ids, 5, against=against, position=13)
    _, logits = heard(model.get_output_embeddings(), lambda: model(ids))
    wanted = logits[0, 13, 5] - (0 if against is None else logits[0, 13, against])
    np.testing.assert_allclose(parts.logit, wanted, rtol=1e-9)
    np.testing.assert_allclose(parts.heads.sum() + sum(parts.others.values()), wanted, atol=1e-6)
    assert parts.layers == (0, 1)
    assert parts.heads.shape == (2, 4)
    assert (abs(parts.heads) > 1e-7).all()


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_parts_are_those_of_frozen_norms(name, ids):
    """Head by head and part by part from the model's matrices, written out."""
    model = model_like(name)
    core, head = (model.model, model.lm_head) if name == "llama" else (model.transformer, model.lm_head)
    layers, norm = (core.layers, core.norm) if name == "llama" else (core.h, core.ln_f)
    x, _ = heard(norm, lambda: model(ids))
    x = x[0, 13]
    centre = np.eye(64) - (1 / 64 if name == "gpt2" else 0)
    eps = norm.eps if name == "gpt2" else norm.variance_epsilon
    scale = 1 / np.sqrt(((centre @ x) ** 2).mean() + eps)
    gain, row = norm.weight.detach().numpy(), (head.weight[5] - head.weight[9]).detach().numpy()
    direction = scale * centre @ (gain * row)  # of the residual stream
    parts = logit_attribution(model, ids, 5, against=9, position=13)
    matrices = output_matrices(model)
    for number, layer in enumerate(layers):
        attention = layer.self_attn if name == "llama" else layer.attn
        y, _ = heard(attention.o_proj if name == "llama" else attention.c_proj, lambda: model(ids))
        own = np.einsum("hd,hdm,m->h", y[0, 13].reshape(4, 16), matrices[number], direction)
        np.testing.assert_allclose(parts.heads[number], own, atol=1e-6)
        _, mlp = heard(layer.mlp, lambda: model(ids))
        prefix = "model.layers" if name == "llama" else "transformer.h"
        np.testing.assert_allclose(parts.others[f"{prefix}.{number}.mlp"], mlp[0, 13] @ direction, atol=1e-6)
    start, _ = heard(layers[0], lambda: model(ids))
    np.testing.assert_allclose(parts.others[f"the input of {prefix}.0"], start[0, 13] @ direction, atol=1e-6)


def test_a_head_adds_what_its_keys_add(ungated, ids):
    model = ungated
    parts = logit_attribution(model, ids, 5, position=13)
    with clearhead.watch(model) as seen, torch.no_grad():
        model(ids)
    for number in range(2):
        layer = seen.layer(number)
        keys = clearhead.key_contributions(layer, layer.values, parts.directions[number], query=13)
        np.testing.assert_allclose(keys.sum(-1), parts.heads[number], atol=1e-5)


def test_a_model_is_left_as_it_was(model, ids):
    before = model(ids).logits
    needing = [x.requires_grad for x in model.parameters()]
    logit_attribution(model, ids, 5)
    assert torch.equal(model(ids).logits, before)
    assert [x.requires_grad for x in model.parameters()] == needing
    assert all(x.grad is None for x in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_inputs_come_as_tokenizers_and_lists_give_them(ids):
    model = model_like("llama")
    model.set_attn_implementation("sdpa")  # eager attention gives rows of padding no numbers
    parts = logit_attribution(model, ids, 5)
    for given in (ids[0], ids[0].tolist(), {"attention_mask": torch.ones_like(ids), "input_ids": ids}):
        assert np.array_equal(logit_attribution(model, given, 5).heads, parts.heads)
    padded = {"input_ids": torch.cat([torch.zeros(1, 3, dtype=torch.long), ids], 1)}
    padded["attention_mask"] = (padded["input_ids"] > 0).long()
    padded["position_ids"] = torch.cat([torch.zeros(3, dtype=torch.long), torch.arange(21)])[None]
    np.testing.assert_allclose(logit_attribution(model, padded, 5).heads, parts.heads, atol=1e-6)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert np.array_equal(logit_attribution(model, ids, 5).heads, parts.heads)
    model.set_attn_implementation("clearhead")
    np.testing.assert_allclose(logit_attribution(model, ids, 5).heads, parts.heads, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_models_agree_as_far_as_their_numbers_do(dtype, ids):
    model = model_like("llama")
    parts = logit_attribution(model, ids, 5, against=9)
    narrow = logit_attribution(model.to(dtype), ids, 5, against=9)
    assert narrow.heads.dtype == np.float32
    np.testing.assert_allclose(narrow.heads, parts.heads, atol=0.03 if dtype != torch.float32 else 1e-5)


def test_a_stream_that_is_not_a_sum_is_refused(ids):
    model = model_like("llama")
    own = model.model.layers[0].forward
    model.model.layers[0].forward = lambda *args, **options: torch.tanh(own(*args, **options))
    with pytest.raises(TrustError, match="add up to"):
        logit_attribution(model, ids, 5)


def test_a_norm_that_is_none_is_refused(ids):
    model = model_like("llama")
    own = model.model.norm.forward
    model.model.norm.forward = lambda x: own(x) ** 2
    with pytest.raises(InputError, match=r"model.norm \(LlamaRMSNorm\) is not gain"):
        logit_attribution(model, ids, 5)


@pytest.mark.parametrize("odd", [63, 64])
@pytest.mark.parametrize("kind", [torch.nn.LayerNorm, torch.nn.RMSNorm])
def test_a_frozen_norm_is_the_norm_where_it_froze_and_linear_elsewhere(kind, odd):
    torch.manual_seed(0)
    norm = kind(odd, dtype=torch.float64)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.normal_()
    x, step = torch.randn(odd).double(), torch.randn(odd).double()
    with torch.no_grad():
        frozen = frozen_norm(norm, x, "it")
        torch.testing.assert_close(frozen(x), norm(x), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(frozen(x + step) - frozen(x), frozen(2 * step) / 2 - frozen.bias / 2)
        assert frozen.centres == (kind is torch.nn.LayerNorm)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m, ids: logit_attribution(m, ids, 97), ["token=97", "0 to 96"]),
        (lambda m, ids: logit_attribution(m, ids, 5, against="a"), ["against='a'"]),
        (lambda m, ids: logit_attribution(m, ids, 5, position=21), ["position 21", "20"]),
        (lambda m, ids: logit_attribution(m, torch.cat([ids, ids]), 5), ["(2, 21)", "one sequence"]),
        (lambda m, ids: logit_attribution(m, {"attention_mask": ids}, 5), ["input_ids"]),
        (lambda m, ids: logit_attribution(copy.deepcopy(m).train(), ids, 5), ["model.eval()"]),
        (lambda m, ids: logit_attribution(m.model, ids, 5), ["LlamaModel", "causal language model"]),
        (lambda m, ids: output_matrices(torch.nn.Linear(2, 2)), ["Linear"]),
    ],
)
def test_what_cannot_be_attributed_is_refused(call, words, ids):
    with pytest.raises(InputError) as caught:
        call(model_like("llama"), ids)
    assert all(word in str(caught.value) for word in words), caught.value


# Gradients


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2", "gpt_neox", "qwen3_next"])
def test_relevance_is_that_of_autograd_on_eager_weights(name):
    torch.manual_seed(2)
    ids, model = torch.randint(3, 97, (1, 21)), model_like(name)
    answer = model(ids, output_attentions=True)
    for w in answer.attentions:
        w.retain_grad()
    answer.logits[0, -1, 5].backward()
    whole = [w.detach()[0].numpy() for w in answer.attentions]
    gradients = [w.grad[0].numpy() for w in answer.attentions]
    with clearhead.watch(model) as seen, output_gradients(model) as recorded:
        model(ids).logits[0, -1, 5].backward()
    assert repr(recorded) == f"OutputGradients(layers={len(seen.layers())}, with a gradient: {len(seen.layers())})"
    lazy = recorded.by_weights(seen)
    for number, wanted in enumerate(gradients):
        seen_by = whole[number] > 0
        rows = np.stack([lazy[number][head, :] for head in range(4)])
        np.testing.assert_allclose(rows[seen_by], wanted[seen_by], rtol=1e-4, atol=1e-5 * abs(wanted).max())
        mine = clearhead.weights_times_gradients(seen.layer(number), lazy[number])
        expected = definition.weights_times_gradients(whole[number], wanted)
        np.testing.assert_allclose(mine, expected, rtol=1e-3, atol=1e-5 * abs(expected).max())
    expected = definition.relevance(whole, gradients)
    np.testing.assert_allclose(clearhead.relevance(seen, lazy), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(clearhead.relevance(seen, lazy, -1), expected[-1], rtol=1e-4, atol=1e-6)


class Fused(torch.nn.Module):  # type: ignore[name-defined]
    """A layer that calls torch's scaled_dot_product_attention."""

    num_heads = 4

    def __init__(self):
        super().__init__()
        self.qkv = torch.nn.Linear(64, 192, dtype=torch.float64)
        self.out_proj = torch.nn.Linear(64, 64, dtype=torch.float64)

    def forward(self, x):
        q, k, v = (t.unflatten(-1, (4, 16)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        return self.out_proj(torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Ready(torch.nn.Module):  # type: ignore[name-defined]
    """A model around torch's own layer."""

    def __init__(self):
        super().__init__()
        self.mix = torch.nn.MultiheadAttention(64, 4, batch_first=True, dtype=torch.float64)
        self.out_proj = self.mix.out_proj

    def forward(self, x):
        return self.mix(x, x, x, need_weights=False)[0]


@pytest.mark.parametrize("kind", [Fused, Ready])
def test_gradients_of_a_model_of_torch_alone(kind):
    torch.manual_seed(0)
    model, x = kind(), torch.randn(1, 9, 64, dtype=torch.float64)
    plain = model(x).square().sum()
    with clearhead.watch(model) as seen, output_gradients(model) as recorded:
        loss = model(x).square().sum()
        loss.backward()
    torch.testing.assert_close(loss, plain)
    (lazy,), w, v = recorded.by_weights(seen), np.asarray(seen.layer(0).weights), seen.layer(0).values
    W_O = output_matrices(model)[0]
    out = definition.head_outputs(w, v, W_O).sum(0) + model.out_proj.bias.detach().numpy()
    expected = definition.gradients(2 * out @ W_O.swapaxes(-1, -2), v)
    np.testing.assert_allclose(np.stack([lazy[head, :] for head in range(4)]), expected, rtol=1e-9, atol=1e-12)


def test_gradients_of_a_padded_sequence_and_of_some_heads():
    torch.manual_seed(2)
    ids, model = torch.randint(3, 97, (2, 15)), model_like("llama")
    model.set_attn_implementation("sdpa")  # eager attention gives rows of padding no numbers
    mask = torch.ones_like(ids)
    mask[1, :6] = 0
    with clearhead.watch(model, heads=[3, 1]) as seen, output_gradients(model) as recorded:
        model(ids, attention_mask=mask).logits[:, -1, 5].sum().backward()
    both = recorded.by_weights(seen, sequence=1)
    with clearhead.watch(model) as alone, output_gradients(model) as recorded:
        model(ids[1:, 6:]).logits[0, -1, 5].backward()
    for some, every in zip(both, recorded.by_weights(alone), strict=True):
        assert some.shape == (2, 9, 9)
        for at, head in enumerate((3, 1)):
            np.testing.assert_allclose(some[at, :], every[head, :], rtol=1e-4, atol=1e-6)


def test_gradients_that_are_missing_or_of_another_pass_are_refused(ids):
    model = model_like("llama")
    with clearhead.watch(model) as seen, output_gradients(model) as recorded:
        loss = model(ids).logits.sum()
        with pytest.raises(InputError, match=r"layer 0 has no gradient: call backward\(\)"):
            recorded.by_weights(seen)
        loss.backward()
    assert len(recorded.by_weights(seen)) == 2
    with clearhead.watch(model) as seen, output_gradients(model) as recorded:
        model.generate(ids, max_new_tokens=2, do_sample=False)
        model(ids[:, :3]).logits.sum().backward()
    with pytest.raises(InputError, match=r"layer 0: the gradients are of the latest pass, over 3 tokens, .* over 22"):
        recorded.by_weights(seen, run=0)
    with clearhead.watch(model) as seen, output_gradients(model) as recorded:
        model(ids)
        model(ids.flip(1)).logits.sum().backward()
    assert len(recorded.by_weights(seen)) == 2
    with pytest.raises(InputError, match="layer 0: the gradients are of the latest pass, over 21 tokens"):
        recorded.by_weights(seen, run=0)


# A watch in place of layers


def test_questions_over_layers_take_a_watch(ids):
    model = model_like("llama")
    with clearhead.watch(model) as seen, torch.no_grad():
        model(ids)
    layers = [seen.layer(n).weights for n in seen.layers()]
    assert np.array_equal(clearhead.rollout(seen), clearhead.rollout(layers))
    assert np.array_equal(clearhead.flow(seen, -1, [0, 3]), clearhead.flow(layers, -1, [0, 3]))
    assert clearhead.heaviest_keys(seen, -1) == clearhead.heaviest_keys(layers, -1)
    with clearhead.watch(model, layers=[1], heads=[2, 0]) as some, torch.no_grad():
        model(ids)
    found = clearhead.heaviest_rows(some, 4, most=50)
    assert {(x.layer, x.head) for x in found} == {(1, 0), (1, 2)}
    for x in found:
        assert x.weight == layers[1][x.head, x.query, x.key]


def test_a_watch_with_gaps_has_no_rollout(ids):
    model = model_of("llama", layers=3)
    with clearhead.watch(model, layers=[0, 2]) as seen, torch.no_grad():
        model(ids)
    with pytest.raises(InputError, match=r"layers \[0, 2\] do not follow one another"):
        clearhead.rollout(seen)
    assert clearhead.rollout([seen.layer(n).weights for n in seen.layers()]).shape == (21, 21)
