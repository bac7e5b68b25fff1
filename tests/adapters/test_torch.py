"""Attention as a torch operator: torch's own checks, its transforms, its attention function and its words."""

import threading
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional  # noqa: E402

import clearhead  # noqa: E402
from clearhead import alibi, bias, causal, dense, full, softcap, window  # noqa: E402
from clearhead.adapters import torch as ct  # noqa: E402
from clearhead.adapters.torch import operator, sdpa  # noqa: E402

torchs_own = sdpa.torchs_own
RULES = {
    "causal": {},
    "full": {"mask": full()},
    "window": {"mask": window(3)},
    "scores": {"score": [alibi(4), softcap(2.0)]},
    "tables": {"mask": causal() & dense(np.tri(7, k=2) > 0), "score": bias(np.arange(49.0).reshape(7, 7) / 50)},
    "sink": {"sink": torch.linspace(-1, 1, 4, dtype=torch.float64)},
}


def operands(*, batch=2, heads=4, key_heads=4, n=7, m=7, dim=5, dtype=torch.float64, grad=True, seed=0):
    torch.manual_seed(seed)
    shapes = (batch, heads, n, dim), (batch, key_heads, m, dim), (batch, key_heads, m, dim + 1)
    return [torch.randn(shape, dtype=dtype).requires_grad_(grad) for shape in shapes]


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_it_is_clearheads_attention(rules, dtype):
    q, k, v = operands(dtype=dtype, grad=False)
    given = dict(RULES[rules])
    sink = given.pop("sink", None)
    output, lse = ct.attend(q, k, v, sink=sink, **given)
    wide = (x.float() if dtype is torch.bfloat16 else x for x in (q, k, v))
    done = clearhead.attend(*(x.numpy() for x in wide), sink=None if sink is None else sink.numpy(), **given)
    torch.testing.assert_close(output, torch.from_numpy(done.output).to(dtype), rtol=0, atol=0)
    torch.testing.assert_close(lse, torch.from_numpy(done.lse), rtol=0, atol=0)


@pytest.mark.parametrize("rules", RULES)
def test_first_and_second_derivatives_are_those_of_finite_differences(rules):
    q, k, v = operands(batch=1, n=7, dim=3)
    given = dict(RULES[rules])
    sink = given.pop("sink", None)
    inputs = [q, k, v] if sink is None else [q, k, v, sink.clone().requires_grad_()]

    def attend(q, k, v, sink=None):
        return ct.attend(q, k, v, sink=sink, **given)

    assert torch.autograd.gradcheck(attend, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(attend, inputs)


@pytest.mark.parametrize("key_heads", [1, 2, 4])
def test_shared_key_heads_have_the_sum_of_gradients(key_heads):
    assert torch.autograd.gradcheck(ct.attention, operands(batch=1, key_heads=key_heads, dim=3))


@pytest.mark.parametrize("rules", ["causal", "scores", "tables"])
def test_torchs_own_checks_of_an_operator(rules):
    q, k, v = operands(batch=1, n=7)
    given = dict(RULES[rules])
    ct.attention(q, k, v, **given)  # registers the rule
    name, tables = ct.rule_of(given.get("mask", causal()), given.get("score", ()))
    options = q, k, v, list(tables), None, name, 0.5
    checked = torch.library.opcheck(operator.operator, options)
    assert set(checked.values()) == {"SUCCESS"}


def test_compiled_and_exported_graphs_hold_it_whole():
    q, k, v = operands(dtype=torch.float32)

    mask, score = window(3), softcap(5.0)

    def loss(q, k, v):
        return ct.attention(q, k, v, mask=mask, score=score).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for ours, plain in zip(
        torch.autograd.grad(compiled(q, k, v), (q, k, v)), torch.autograd.grad(loss(q, k, v), (q, k, v)), strict=True
    ):
        torch.testing.assert_close(ours, plain)

    class Layer(torch.nn.Module):
        def forward(self, q, k, v):
            return ct.attention(q, k, v)

    plain = [x.detach() for x in (q, k, v)]
    graph = torch.export.export(Layer(), tuple(plain))
    assert "clearhead.attention" in str(graph.graph)
    torch.testing.assert_close(graph.module()(*plain), ct.attention(*plain), rtol=0, atol=0)


def test_vmap_grad_and_jvp():
    q, k, v = operands(grad=False)
    whole = ct.attention(q, k, v)
    torch.testing.assert_close(torch.func.vmap(ct.attention)(q, k, v), whole)
    torch.testing.assert_close(torch.func.vmap(ct.attention, in_dims=(0, None, None))(q, k[0], v[0])[0], whole[0])

    def loss(q, k, v):
        return ct.attention(q, k, v).square().sum()

    each = torch.func.vmap(torch.func.grad(loss))(q, k, v)
    torch.testing.assert_close(each, torch.func.grad(loss)(q, k, v))
    _, along = torch.func.jvp(loss, (q, k, v), (q, k, v))
    step = 1e-6
    difference = (loss(*(x * (1 + step) for x in (q, k, v))) - loss(*(x * (1 - step) for x in (q, k, v)))) / (2 * step)
    torch.testing.assert_close(along, difference, rtol=1e-6, atol=1e-6)


def test_autocast_and_checkpoints():
    q, k, v = operands(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert ct.attention(q, k, v).dtype is torch.bfloat16
    plain = torch.autograd.grad(ct.attention(q, k, v).sum(), (q, k, v))
    again = torch.utils.checkpoint.checkpoint(ct.attention, q, k, v, use_reentrant=False)
    for a, b in zip(plain, torch.autograd.grad(again.sum(), (q, k, v)), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


MASKS = {
    "none": lambda n, m: {},
    "causal": lambda n, m: {"is_causal": True},
    "bool": lambda n, m: {"attn_mask": torch.rand(2, 1, n, m) < 0.7},
    "float": lambda n, m: {"attn_mask": torch.randn(n, m, dtype=torch.float64, requires_grad=True)},
    "heads": lambda n, m: {"attn_mask": torch.randn(4, 1, m, dtype=torch.float64, requires_grad=True)},
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(("n", "m"), [(7, 7), (3, 9), (9, 3)])
@pytest.mark.parametrize("key_heads", [4, 2])
def test_scaled_dot_product_attention_means_what_torchs_does(mask, n, m, key_heads):
    given = operands(n=n, m=m, key_heads=key_heads)
    options = MASKS[mask](n, m) | {"scale": 0.3, "enable_gqa": key_heads != 4}
    if mask == "bool":
        options["attn_mask"][..., 0] = True  # of what sees nothing torch makes not-a-number, clearhead 0
    ours, theirs = sdpa.scaled_dot_product_attention(*given, **options), torchs_own(*given, **options)
    torch.testing.assert_close(ours, theirs)
    inputs = [x for x in (*given, options.get("attn_mask")) if x is not None and x.requires_grad]
    d = torch.randn_like(ours)
    for a, b in zip(torch.autograd.grad(ours, inputs, d), torch.autograd.grad(theirs, inputs, d), strict=True):
        torch.testing.assert_close(a, b)


def test_dropout_is_the_same_at_any_number_of_threads():
    q, k, v = operands(n=65, m=65, dtype=torch.float32)
    v = torch.ones_like(v)
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            torch.manual_seed(7)
            results.append(sdpa.scaled_dot_product_attention(q, k, v, dropout_p=0.3))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(results[0], x) for x in results[1:])
    assert results[0].mean().item() == pytest.approx(1, abs=0.05)
    assert results[0].std() > 0.01
    torch.manual_seed(8)
    assert not torch.equal(results[0], sdpa.scaled_dot_product_attention(q, k, v, dropout_p=0.3))


def test_patch_holds_within_and_tells_once_what_it_hands_back():
    q, k, v = operands(dtype=torch.float32, grad=False)
    with ct.patch():
        assert functional.scaled_dot_product_attention is not torchs_own
        inside = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        seen = []
        thread = threading.Thread(target=lambda: seen.append(functional.scaled_dot_product_attention))
        thread.start()
        thread.join()
        assert seen[0] is not torchs_own
    assert functional.scaled_dot_product_attention is torchs_own
    torch.testing.assert_close(inside, ct.attention(q, k, v), rtol=0, atol=0)
    sdpa.told.clear()
    with ct.patch(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            with pytest.raises(RuntimeError):
                functional.scaled_dot_product_attention(q, k, v, attn_mask=q[..., :7] > 0, is_causal=True)
    assert len([w for w in caught if "exclude" in str(w.message)]) == 1


@ct.patch()
def test_patch_is_a_decorator():
    assert functional.scaled_dot_product_attention is not torchs_own


def test_profilers_modes_and_other_devices_see_the_operator():
    q = torch.randn(1, 2, 8, 4, requires_grad=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        ct.attention(q, q, q).sum().backward()
    names = {event.name for event in seen.events()}
    assert {"clearhead::attention", "clearhead::attention_backward"} <= names
    assert ct.attention(*[torch.empty(1, 2, 8, 4, device="meta")] * 3).device.type == "meta"
    with torch._subclasses.FakeTensorMode():
        assert ct.attention(*[torch.empty(1, 2, 8, 4)] * 3).shape == (1, 2, 8, 4)
