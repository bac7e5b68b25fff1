"""A watch changes nothing: a model's outputs keep their bits, and everything replaced meanwhile is put back."""

import copy
import pickle
import threading
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.nn.attention import flex_attention as flex  # noqa: E402
from transformers import AttentionInterface  # noqa: E402

import clearhead  # noqa: E402
from clearhead.adapters.torch import patch  # noqa: E402
from clearhead.adapters.torch.calls import handlers  # noqa: E402
from clearhead.watched.seen import Watch  # noqa: E402
from tests import tiny_models  # noqa: E402

OWNERS = {
    "scaled_dot_product_attention": functional,
    "multi_head_attention_forward": functional,
    "flex_attention": flex,
    "_native_multi_head_attention": torch,
    "_transformer_encoder_layer_fwd": torch,
    "get_interface": AttentionInterface,
    "__getitem__": AttentionInterface,
}


def now_in_place():
    """The functions that a watch replaces."""
    return {name: getattr(owner, name) for name, owner in OWNERS.items()}


@pytest.fixture(autouse=True)
def _everything_is_put_back():
    before = now_in_place()
    yield
    assert now_in_place() == before
    assert not handlers


def hooks_of(model):
    return [hook for module in model.modules() for hook in (*module._forward_hooks, *module._forward_pre_hooks)]


def tokens_and_mask():
    torch.manual_seed(1)
    tokens, mask = torch.randint(3, 97, (2, 21)), torch.ones(2, 21, dtype=torch.long)
    mask[1, :5] = 0
    return {"input_ids": tokens, "attention_mask": mask}


ATTENTIONS = {
    "llama": ["eager", "sdpa", "flex_attention", "clearhead"],
    "mistral": ["eager", "sdpa", "flex_attention", "clearhead"],
    "gemma2": ["eager", "flex_attention", "clearhead"],
    "gpt_oss": ["eager", "clearhead"],
}


@pytest.fixture
def _flex_is_not_compiled(monkeypatch):
    tiny_models.run_flex_as_it_is(monkeypatch)


@torch.no_grad()
@pytest.mark.usefixtures("_flex_is_not_compiled")
@pytest.mark.parametrize(("kind", "attention"), [(kind, name) for kind, names in ATTENTIONS.items() for name in names])
def test_logits_of_transformers_models(kind, attention):
    model = tiny_models.model_of(kind, "eager")
    model.set_attn_implementation(attention)
    given = tokens_and_mask()
    expected = model(**given).logits
    with clearhead.watch(model) as seen:
        found = model(**given).logits
    assert torch.equal(found, expected)
    assert torch.equal(model(**given).logits, expected)
    assert seen.layer(1, sequence=1).weights.shape == (4, 16, 16)
    assert not hooks_of(model)


class Own(nn.Module):
    """Attention as people write it, by a function that they imported."""

    def __init__(self, heads=4, dropout=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.project, self.heads, self.dropout = nn.Linear(32, 96), heads, dropout

    def forward(self, x, mask=None):
        q, k, v = self.project(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        own = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, dropout_p=self.dropout if self.training else 0.0
        )
        return own.transpose(1, 2).flatten(-2)


class Flexible(Own):
    """The same with flex_attention."""

    def forward(self, x, mask=None):
        q, k, v = self.project(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        block = flex.create_block_mask(lambda b, h, i, j: i >= j, None, None, len(x[0]), len(x[0]), device="cpu")
        return flex.flex_attention(q, k, v, lambda s, b, h, i, j: s - (i - j) * 0.1, block).transpose(1, 2).flatten(-2)


@torch.no_grad()
@pytest.mark.parametrize("model", [Own, Flexible])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_models_that_call_torchs_functions(model, dtype):
    own = model().to(dtype)
    x = torch.randn(2, 9, 32, dtype=dtype)
    expected = own(x)
    with clearhead.watch(own) as seen:
        found = own(x)
    assert torch.equal(found, expected)
    weights = np.asarray(seen.layer(0).weights)
    assert weights.shape == (4, 9, 9)
    v = own.project(x).unflatten(-1, (3, 4, -1)).permute(2, 0, 3, 1, 4)[2, 0].double().numpy()
    np.testing.assert_allclose(
        (weights @ v).swapaxes(0, 1).reshape(9, 32),
        expected[0].double(),
        atol=0.02 if dtype == torch.bfloat16 else 1e-5,
    )


def encoder(norm_first=False, layers=2):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=norm_first)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=not norm_first).eval()


PADS = torch.tensor([[False] * 9, [False] * 6 + [True] * 3])
GIVEN = {
    "plain": {},
    "padding": {"src_key_padding_mask": PADS},
    "causal": {"mask": nn.Transformer.generate_square_subsequent_mask(9), "is_causal": True},
}


def layer_weights(model, x, **given):
    """What each layer of an encoder answers to the request for its weights."""
    found = []
    for layer in model.layers:
        attended = layer.norm1(x) if layer.norm_first else x
        pads, mask = given.get("src_key_padding_mask"), given.get("mask")
        found.append(layer.self_attn(attended, attended, attended, pads, attn_mask=mask, average_attn_weights=False)[1])
        x = layer(x, src_mask=mask, src_key_padding_mask=pads)
    return found


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("fast", [True, False])
def test_torchs_encoder_on_every_path(given, norm_first, fast):
    model, x = encoder(norm_first), torch.randn(2, 9, 32)
    with torch.set_grad_enabled(not fast):
        expected = model(x, **GIVEN[given])
        with clearhead.watch(model) as seen:
            found = model(x, **GIVEN[given])
    assert torch.equal(found, expected)
    with torch.no_grad(), nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
        weights = layer_weights(model, x, **GIVEN[given])
    for number, own in enumerate(weights):
        for sequence, length in enumerate((9, 6 if given == "padding" else 9)):
            shown = np.asarray(seen.layer(number, sequence=sequence).weights)
            np.testing.assert_allclose(shown, own[sequence, :, :length, :length], atol=2e-6)


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("average", [True, False])
@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("crosses", [True, False])
def test_multihead_attention(need_weights, average, fast, crosses):
    torch.manual_seed(0)
    model, x = nn.MultiheadAttention(32, 4, batch_first=True).eval(), torch.randn(2, 9, 32)
    y, options = (
        torch.randn(2, 5, 32) if crosses else x,
        {"need_weights": need_weights, "average_attn_weights": average},
    )
    with torch.set_grad_enabled(not fast):
        expected, own = model(y, x, x, **options)
        with clearhead.watch(model) as seen:
            found, again = model(y, x, x, **options)
    assert torch.equal(found, expected)
    assert (own is None and again is None) or torch.equal(own, again)
    whole = model(y, x, x, average_attn_weights=False)[1].detach()
    for sequence in range(2):
        np.testing.assert_allclose(seen.layer(0, sequence=sequence).weights, whole[sequence], atol=2e-6)


def trained(model, given, watching):
    """Losses, gradients and the generator's state after two steps of training."""
    torch.manual_seed(5)
    found = []
    with ExitStack() as stack:
        if watching:
            stack.enter_context(clearhead.watch(model))
        for _ in range(2):
            model.zero_grad()
            output = model(**given) if isinstance(given, dict) else model(given)
            loss = output.logits.logsumexp(-1).mean() if isinstance(given, dict) else output.square().mean()
            loss.backward()
            found += [loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]
    return [*found, torch.get_rng_state()]


def trainable(name):
    """A model in training with dropout, and its input."""
    if name == "encoder":
        return encoder().train(), torch.randn(2, 9, 32)
    if name == "own":
        return Own(dropout=0.3).train(), torch.randn(2, 9, 32)
    config = tiny_models.config_of("llama")
    config.attention_dropout = 0.3
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=name).train()
    return model, {"input_ids": tokens_and_mask()["input_ids"], "use_cache": False}


@pytest.mark.parametrize("name", ["eager", "sdpa", "clearhead", "own", "encoder"])
def test_training_with_dropout_draws_the_same_numbers(name):
    model, given = trainable(name)
    expected, found = trained(model, given, False), trained(model, given, True)
    assert len(found) == len(expected) > 4
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@torch.no_grad()
def test_weights_of_a_layer_with_dropout_are_those_before_it():
    model, given = trainable("sdpa")
    with clearhead.watch(model) as seen:
        model(**given)
    model.eval().set_attn_implementation("eager")
    expected = model(**given, output_attentions=True).attentions[0][0]
    np.testing.assert_allclose(np.asarray(seen.layer(0).weights), expected, atol=1e-5)


@torch.no_grad()
def test_watches_inside_each_other_both_see():
    model, given = tiny_models.model_of("llama", "sdpa"), tokens_and_mask()
    expected = model(**given).logits
    with clearhead.watch(model) as outer, clearhead.watch(model, layers=[1]) as inner:
        found = model(**given).logits
    assert torch.equal(found, expected)
    assert (outer.layers(), inner.layers()) == ((0, 1), (1,))
    assert np.array_equal(np.asarray(outer.layer(1).weights), np.asarray(inner.layer(1).weights))


@torch.no_grad()
@pytest.mark.parametrize("first", [0, 1])
def test_watches_left_in_any_order(first):
    model, given = tiny_models.model_of("llama", "sdpa"), tokens_and_mask()
    watches = [clearhead.watch(model) for _ in range(2)]
    seen = [one.__enter__() for one in watches]
    model(**given)
    watches[first].__exit__(None, None, None)
    model(**given)
    watches[1 - first].__exit__(None, None, None)
    model(**given)
    assert len(seen[first].runs) == 1
    assert len(seen[1 - first].runs) == 2
    assert not hooks_of(model)


@torch.no_grad()
@pytest.mark.parametrize("outside", ["patch", "watch"])
@pytest.mark.parametrize("crossed", [False, True])
def test_with_clearheads_patch_of_torch(outside, crossed):
    model, x = Own(), torch.randn(2, 9, 32)
    with patch():
        expected = model(x)
    contexts: list[Any] = [patch(), clearhead.watch(model)]
    if outside == "watch":
        contexts.reverse()
    entered = [one.__enter__() for one in contexts]
    found = model(x)
    for one in contexts if crossed else reversed(contexts):
        one.__exit__(None, None, None)
    seen = next(one for one in entered if isinstance(one, Watch))
    assert torch.equal(found, expected)
    assert seen.layer(0).weights.shape == (4, 9, 9)


@torch.no_grad()
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])  # noqa: S301
def test_a_copy_of_a_watched_model_is_not_watched(copied):
    model, given = tiny_models.model_of("llama", "sdpa"), tokens_and_mask()
    with clearhead.watch(model) as seen:
        model(**given)
        other = copied(model)
        held = seen.nbytes
        logits = other(**given).logits
    assert len(seen.runs) == 1
    assert seen.nbytes == held
    assert torch.equal(logits, model(**given).logits)
    left = [hook for module in other.modules() for hook in module._forward_pre_hooks.values()]
    assert left
    assert all(hook.told is None for hook in left)  # neither the watch nor what it holds is copied
    with clearhead.watch(other) as again:
        other(**given)
    assert len(again.runs) == 1


@torch.no_grad()
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_ends_it(error):
    model, given = tiny_models.model_of("llama", "sdpa"), tokens_and_mask()

    def interrupted():
        with clearhead.watch(model):
            model(**given)
            raise error

    with pytest.raises(error):
        interrupted()
    assert not hooks_of(model)


@torch.no_grad()
def test_a_model_that_is_refused_leaves_all_in_place():
    model = tiny_models.model_of("llama", "sdpa")
    with pytest.raises(clearhead.InputError), clearhead.watch(model, layers=[7]):
        pass
    assert not hooks_of(model)


@torch.no_grad()
def test_each_thread_watches_its_own_model():
    models = [tiny_models.model_of(kind, "sdpa") for kind in ("llama", "mistral")]
    given = tokens_and_mask()
    expected, found = [model(**given).logits for model in models], {}
    together = threading.Barrier(2)

    def work(n):
        with torch.no_grad(), clearhead.watch(models[n]) as seen:
            together.wait()
            logits = [models[n](**given).logits for _ in range(5)]
            together.wait()
        found[n] = logits, seen

    threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n in range(2):
        logits, seen = found[n]
        assert all(torch.equal(own, expected[n]) for own in logits)
        assert len(seen.runs) == 5
        seen.layer(1, sequence=1)


@torch.no_grad()
def test_a_compiled_models_layers_are_seen():
    model, given = tiny_models.model_of("llama", "sdpa"), tokens_and_mask()
    compiled = torch.compile(model, backend="eager")
    compiled(**given)
    with clearhead.watch(model) as seen:
        compiled(**given)
    assert seen.layer(1).weights.shape == (4, 21, 21)


def test_blocks_that_end_in_another_order_leave_compilation_as_it_was():
    from torch._dynamo import eval_frame

    model = tiny_models.model_of("llama")
    before = eval_frame._stance.stance
    first, second = clearhead.watch(model), clearhead.watch(model)
    first.__enter__()
    second.__enter__()
    assert eval_frame._stance.stance == "force_eager"
    first.__exit__(None, None, None)
    assert eval_frame._stance.stance == "force_eager"
    second.__exit__(None, None, None)
    assert eval_frame._stance.stance == before
