"""Attention as a torch operator: torch's own checks, its transforms, its attention function and its words."""

import contextlib
import subprocess
import sys
import threading
import warnings
from typing import Any

import ml_dtypes
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn import Module, functional  # noqa: E402

import clearhead  # noqa: E402
from clearhead import InputError, alibi, bias, causal, dense, full, softcap, where, window  # noqa: E402
from clearhead.adapters import torch as ct  # noqa: E402
from clearhead.adapters.torch import direct, dispatch, nn, sdpa  # noqa: E402
from clearhead.adapters.torch.layers import rotary  # noqa: E402
from clearhead.adapters.torch.rule_names import filled_rules, split_rules  # noqa: E402
from clearhead.errors import ClearheadError, TraceError  # noqa: E402
from clearhead.rules.scores import as_rules  # noqa: E402

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
    q, k, v = operands(batch=1, key_heads=1, n=7, dim=3)
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
def test_torchs_own_checks_of_the_operators(rules):
    q, k, v = operands(batch=1, n=7)
    given = dict(RULES[rules])
    rule, tables = split_rules(given.get("mask", causal()), as_rules(given.get("score", ())))
    options = q, k, v, list(map(torch.from_numpy, tables)), None, rule.name, 0.5
    results = [x.detach() for x in dispatch.operator(*options)]
    d_results, along = [torch.randn_like(x) for x in results], [q, k, v, None, *(None for _ in tables)]
    along = [None if x is None else torch.randn_like(x) for x in along]
    for own, given in (
        (dispatch.operator, options),
        (dispatch.backward_operator, (*d_results, *results, *options)),
        (dispatch.tangent_operator, (*results, *options, along)),
        (dispatch.second_operator, (*d_results, *results, *options, along)),
    ):
        # beyond second order there is a formula, whose graph needs shapes that stand still
        tests = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
        checked = torch.library.opcheck(own, given, test_utils=tests[: None if own is dispatch.operator else 3])
        assert set(checked.values()) == {"SUCCESS"}, own


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

    class Layer(Module):
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
    sdpa.warned_reasons.clear()
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


WRONG = [(5, 7), (7, 6), (3, 1, 7, 7), (2, 3, 7, 7), (7,), (), (0, 7), (2, 1, 4, 7, 7)]


@pytest.mark.filterwarnings("ignore:clearhead leaves")
@pytest.mark.parametrize("shape", WRONG, ids=str)
def test_masks_that_do_not_fit_are_torchs_to_refuse(shape):
    q, k, v = operands(grad=False)
    for function in (sdpa.scaled_dot_product_attention, torchs_own):
        with pytest.raises((RuntimeError, IndexError)):
            function(q, k, v, torch.rand(shape, dtype=torch.float64))


@pytest.mark.parametrize("n", [7, 5])
@pytest.mark.parametrize("variant", ["causal_upper_left", "causal_lower_right"])
def test_torchs_causal_masks_are_known(variant, n):
    q, k, v = operands(n=n, grad=False)
    mask = getattr(torch.nn.attention.bias, variant)(n, 7)
    want = torchs_own(q, k, v, mask)
    with ct.patch():
        torch.testing.assert_close(functional.scaled_dot_product_attention(q, k, v, mask), want)
    with pytest.raises(ValueError, match="causal"):
        sdpa.scaled_dot_product_attention(q, k, v, mask, is_causal=True)


def attended(q):
    """A function of queries that every transform can take."""
    keys = torch.linspace(-1, 1, q.shape[-2] * q.shape[-1], dtype=q.dtype).reshape(q.shape[-2:]).expand_as(q)
    return sdpa.scaled_dot_product_attention(q, keys, keys.sin())


def loss(q):
    return attended(q).pow(3).sum()


make_fx = torch.fx.experimental.proxy_tensor.make_fx
FOLLOWED = {
    "jvp": lambda x, t: torch.func.jvp(attended, (x,), (t,))[1],
    "compiled jvp": lambda x, t: compiled(lambda x, t: torch.func.jvp(attended, (x,), (t,))[1])(x, t),
    "interpreted jvp": lambda x, t: torch.compile(
        lambda x, t: torch.func.jvp(attended, (x,), (t,))[1], fullgraph=True, backend="eager"
    )(x, t),
    "linearized": lambda x, t: torch.func.linearize(attended, x)[1](t),
    "traced jvp": lambda x, t: make_fx(lambda x: torch.func.jvp(attended, (x,), (t,))[1])(x + 1)(x),
    "compiled gradient": lambda x, t: compiled(torch.func.grad(loss))(x),
    "Hessian's product": lambda x, t: torch.func.jvp(torch.func.grad(loss), (x,), (t,))[1],
    "traced Hessian's product": lambda x, t: make_fx(
        lambda x: torch.func.grad(lambda y: (torch.func.grad(loss)(y) * t).sum())(x)
    )(x + 1)(x),
    "functionalized": lambda x, t: torch.func.functionalize(attended)(x),
    "torch.jit": lambda x, t: torch.jit.trace(attended, (x + 1,))(x),
    "torch.fx": lambda x, t: torch.fx.symbolic_trace(Layer())(x),
    "compiled dropout": lambda x, t: compiled(lambda x: dropped(x, torch.ones_like(x)))(x).gt(0).any(-1),
}
WANTED = {
    "functionalized": lambda x, t: attended(x),
    "torch.jit": lambda x, t: attended(x),
    "torch.fx": lambda x, t: sdpa.scaled_dot_product_attention(x, x, x),
    "compiled gradient": lambda x, t: torch.func.grad(loss)(x),
    "compiled dropout": lambda x, t: torch.ones(x.shape[:-1], dtype=torch.bool),
}


class Layer(Module):
    def forward(self, x):
        return sdpa.scaled_dot_product_attention(x, x, x)


def dropped(x, values):
    return sdpa.scaled_dot_product_attention(x, x, values, dropout_p=0.1)


def compiled(function):
    return torch.compile(function, fullgraph=True, backend="aot_eager")


def differences(x, t):
    """Forward mode by finite differences, of the output or the gradient."""
    step = 1e-6
    return {
        name: (function(x + step * t) - function(x - step * t)) / (2 * step)
        for name, function in (("output", attended), ("gradient", torch.func.grad(loss)))
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FOLLOWED)
def test_whatever_transforms_or_traces_sees_the_operator(name):
    x, t, _ = operands(grad=False, dim=5)
    got = FOLLOWED[name](x, t)
    by_differences = differences(x, t)["gradient" if "Hessian" in name else "output"]
    want = WANTED[name](x, t) if name in WANTED else by_differences
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-7)


def test_shapes_are_known_without_numbers_in_every_derivative():
    with torch._subclasses.FakeTensorMode():
        x = torch.randn(2, 4, 7, 5, requires_grad=True)
        (first,) = torch.autograd.grad(loss(x), x, create_graph=True)
        assert torch.autograd.grad(first.sum(), x)[0].shape == x.shape
        assert torch.func.jvp(attended, (x.detach(),), (x.detach(),))[1].shape == x.shape
        with pytest.raises(RuntimeError, match="lengths differ"):
            ct.attention(x, x, x[:, :, :3])


@pytest.mark.parametrize("strict", [True, False])
def test_masks_of_any_size_stand_in_an_exported_graph(strict):
    class Masked(Module):
        def forward(self, q, k, v, mask):
            return sdpa.scaled_dot_product_attention(q, k, v, mask)

    def given(n):
        return *operands(n=n, m=n, grad=False), torch.randn(n, n, dtype=torch.float64)

    size = torch.export.Dim("n", min=2)
    sizes = ({2: size}, {2: size}, {2: size}, {0: size, 1: size})
    graph = torch.export.export(Masked(), given(7), dynamic_shapes=sizes, strict=strict)
    torch.testing.assert_close(graph.module()(*given(9)), torchs_own(*given(9)))


def test_a_saved_graph_runs_in_a_process_that_never_met_its_rule(tmp_path):
    class Capped(Module):
        def forward(self, x):
            return ct.attention(x, x, x, mask=MASK, score=SCORE)

    x, _, _ = operands(grad=False)
    torch.export.save(torch.export.export(Capped(), (x,)), tmp_path / "graph.pt2")
    code = (
        "import sys, torch, clearhead.adapters.torch\n"
        "graph = torch.export.load(sys.argv[1] + '/graph.pt2')\n"
        "torch.save(graph.module()(torch.load(sys.argv[1] + '/x.pt')), sys.argv[1] + '/y.pt')"
    )
    torch.save(x, tmp_path / "x.pt")
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env={"PYTHONPATH": ":".join(sys.path)})
    torch.testing.assert_close(torch.load(tmp_path / "y.pt"), Capped()(x), rtol=0, atol=0)


MASK, SCORE = window(3), (softcap(2.5),)


def test_compiled_graphs_hold_rules_made_before_them():
    class Capped(Module):
        def __init__(self):
            super().__init__()
            self.mask, self.score = MASK, [alibi(4), *SCORE]

        def forward(self, x):
            return ct.attention(x, x, x, mask=self.mask, score=self.score)

    x, _, _ = operands(grad=False)
    torch.testing.assert_close(compiled(Capped())(x), Capped()(x), rtol=0, atol=0)
    layer = ct.nn.SelfAttention(8, 2, mask=MASK, score=SCORE)
    torch.testing.assert_close(compiled(layer)(torch.ones(2, 5, 8)), layer(torch.ones(2, 5, 8)))


def test_only_a_few_large_tables_are_kept():
    q = torch.randn(1, 1, 200, 8)
    for _ in range(20):
        sdpa.scaled_dot_product_attention(q, q, q, torch.randn(200, 200))
    assert 0 < len(filled_rules.large) <= 8


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_expanded_keys_have_a_gradient_for_each_head(heads):
    q, _, _ = operands(heads=4)
    shared = torch.randn(2, 1, 7, 5, dtype=torch.float64, requires_grad=True)
    found = []
    for keys in (shared.expand(2, heads, 7, 5), shared.expand(2, heads, 7, 5).contiguous()):
        y = sdpa.scaled_dot_product_attention(q, keys, keys, enable_gqa=True)
        found.append(torch.autograd.grad(y.pow(2).sum(), (q, shared)))
    torch.testing.assert_close(*found)


def test_autocast_makes_every_narrower_float_of_its_dtype():
    q = torch.randn(1, 2, 8, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            assert ct.attention(*[q.to(dtype)] * 3).dtype is torch.bfloat16
        assert ct.attention(*[q.double()] * 3).dtype is torch.float64


def test_bits_that_negate_are_obeyed():
    z = torch.randn(1, 2, 6, 4, dtype=torch.complex128).conj().imag
    assert z.is_neg()
    torch.testing.assert_close(ct.attention(z, z, z), ct.attention(*[z.resolve_neg()] * 3), rtol=0, atol=0)


def test_a_patch_is_used_again():
    patched = ct.patch()
    for _ in range(2):
        with patched, patched:
            assert functional.scaled_dot_product_attention is sdpa.scaled_dot_product_attention
        assert functional.scaled_dot_product_attention is torchs_own


@pytest.mark.parametrize("enabled", [True, False])
def test_modules_in_evaluation_call_the_function_while_it_is_patched(enabled, monkeypatch):
    layer, x = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval(), torch.randn(1, 9, 16)
    asked, directly = [], direct.attend_directly
    monkeypatch.setattr(sdpa, "attend_directly", lambda *x, **options: asked.append(x) or directly(*x, **options))
    torch.backends.mha.set_fastpath_enabled(enabled)
    try:
        with torch.no_grad(), ct.patch():
            y = layer(x)
        assert torch.backends.mha.get_fastpath_enabled() == enabled
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    assert len(asked) == 1
    torch.testing.assert_close(y, layer(x))


def at_each_step(function, run):
    """Call a function, and another at every instruction of its own."""

    def trace(frame, event, _):
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            sys.settrace(None)
            run()
            sys.settrace(trace)
        return trace

    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(None)


def test_a_signal_handler_may_patch_in_the_middle_of_a_patch():
    seen = []

    def handler():
        with ct.patch():
            seen.append(functional.scaled_dot_product_attention)

    def interrupted():
        patched = ct.patch()
        at_each_step(patched.__enter__, handler)
        seen.append(functional.scaled_dot_product_attention)
        at_each_step(lambda: patched.__exit__(None, None, None), handler)

    thread = threading.Thread(target=interrupted, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert functional.scaled_dot_product_attention is torchs_own
    assert len(seen) > 40
    assert set(seen) == {sdpa.scaled_dot_product_attention}


def test_a_patch_undoes_nobody_elses(monkeypatch):
    """torch's context_parallel puts a function there that computes over all ranks."""

    def another(*args, **options):
        return torchs_own(*args, **options)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", another)
    with pytest.raises(InputError, match=r"would undo .*another, which has replaced torch's"):
        ct.patch().__enter__()
    assert functional.scaled_dot_product_attention is another
    monkeypatch.undo()
    with ct.patch():  # and one that comes later stays
        functional.scaled_dot_product_attention = another
    assert functional.scaled_dot_product_attention is another
    functional.scaled_dot_product_attention = torchs_own


@pytest.fixture
def mesh():
    """A device mesh of this process alone."""
    distributed = torch.distributed
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield distributed.device_mesh.init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


def test_pieces_of_a_sequence_are_refused(mesh):
    from torch.distributed.tensor.experimental import context_parallel

    x = torch.zeros(1, 1, 2, 4)
    with context_parallel(mesh, buffers=[torch.zeros(1, 1, 2, 4)], buffer_seq_dims=[2]):
        for function in (ct.attention, ct.flash_attn_func, ct.flex_attention, ct.scaled_dot_product_attention):
            with pytest.raises(InputError, match="this rank has only a part of the sequence"):
                function(x, x, x)
        with pytest.raises(InputError, match=r"would undo torch\.distributed"):
            ct.patch().__enter__()
    assert functional.scaled_dot_product_attention is torchs_own


def test_tensors_that_know_torchs_function_alone_are_handed_to_it():
    from torch.testing._internal.two_tensor import TwoTensor

    q, k, v = (TwoTensor(x, x) for x in operands(grad=False))
    found: Any
    sdpa.warned_reasons.clear()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), pytest.warns(match="is a TwoTensor"):
        found = ct.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(found.a, torchs_own(q.a, k.a, v.a))


def test_spread_tensors_are_computed_where_they_lie(mesh):
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    whole = operands(grad=True)
    want = ct.scaled_dot_product_attention(*whole, is_causal=True)
    found: Any
    wanted = torch.autograd.grad(want.square().sum(), whole)
    for cut in (Shard(0), Shard(1), Shard(2)):
        spread = [distribute_tensor(x.detach(), mesh, [cut]).requires_grad_() for x in whole]
        found = ct.scaled_dot_product_attention(*spread, is_causal=True)
        gradients = torch.autograd.grad(found.square().sum(), spread)
        assert found.placements == ((Replicate() if cut == Shard(2) else cut),)
        assert torch.equal(found.full_tensor(), want)
        assert all(torch.equal(a.full_tensor(), b) for a, b in zip(gradients, wanted, strict=True))
    with pytest.raises(InputError, match="make all three DTensors, or none"):
        ct.attention(spread[0], *whole[1:])


def jagged(lengths, heads, dim):
    torch.manual_seed(0)
    parts = [torch.randn(n, heads, dim, dtype=torch.float64) for n in lengths]
    return parts, torch.nested.nested_tensor(parts, layout=torch.jagged, requires_grad=True)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("causally", [False, True])
@pytest.mark.parametrize("inside", [False, True])
def test_nested_tensors_are_computed_each_alone(causally, inside):
    parts, x = jagged((5, 1, 9), 2, 4)
    expected, leaves = [], [part.requires_grad_() for part in parts]
    for part in leaves:
        own = part.transpose(0, 1)[None]
        expected.append(torchs_own(own, own, own, is_causal=causally)[0].transpose(0, 1))
    turned = x.transpose(1, 2)
    with ct.patch() if inside else contextlib.nullcontext():
        function = functional.scaled_dot_product_attention if inside else ct.scaled_dot_product_attention
        found = function(turned, turned, turned, is_causal=causally).transpose(1, 2)
    torch.testing.assert_close(found.values(), torch.cat(expected))
    mask = causal() if causally else full()
    torch.testing.assert_close(ct.attention(turned, turned, turned, mask=mask).transpose(1, 2).values(), found.values())
    found.values().square().sum().backward()
    sum(part.square().sum() for part in expected).backward()
    torch.testing.assert_close(x.grad.values(), torch.cat([part.grad for part in leaves]))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_queries_and_keys_of_other_lengths():
    parts, q = jagged((5, 1, 9), 2, 4)
    others, k = jagged((3, 7, 2), 2, 4)
    q, k = q.transpose(1, 2), k.transpose(1, 2)
    found = ct.scaled_dot_product_attention(q, k, k).transpose(1, 2).values()
    expected = [torchs_own(a.transpose(0, 1), *[b.transpose(0, 1)] * 2) for a, b in zip(parts, others, strict=True)]
    torch.testing.assert_close(found, torch.cat([x.transpose(0, 1) for x in expected]))
    with pytest.raises(InputError, match="nested tensors only work with causal"):
        ct.attention(q, k, k)
    with pytest.raises(InputError, match=r"pad them, as by x.to_padded_tensor\(0.0\)"):
        ct.attention(q, q, q, mask=where(lambda batch, head, query, key: query > key))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_through_the_modules():
    torch.manual_seed(0)
    parts = [torch.randn(n, 8) for n in (5, 1, 9)]
    x = torch.nested.nested_tensor(parts, layout=torch.jagged)
    layer, theirs = nn.SelfAttention(8, 2), nn.MultiheadAttention(8, 2, batch_first=True)
    torch.testing.assert_close(layer(x).values(), torch.cat([layer(part) for part in parts]))
    found = theirs(x, x, x, need_weights=False)[0].values()
    torch.testing.assert_close(found, torch.cat([theirs(part, part, part)[0] for part in parts]))
    with pytest.raises(InputError, match="nested tensors need batch_first=True, need_weights=False"):
        theirs(x, x, x)


@pytest.mark.parametrize("key_heads", [4, 2, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_heads_join_without_a_copy_as_after_torchs_own(key_heads, dtype):
    q, k, v = operands(key_heads=key_heads, dtype=dtype, grad=False)
    v = v[..., :5]
    for function in (sdpa.scaled_dot_product_attention, torch.compile(ct.attention, backend="aot_eager")):
        options = {} if function is not sdpa.scaled_dot_product_attention else {"is_causal": True, "enable_gqa": True}
        y = function(q, k, v, **options)
        assert y.transpose(1, 2).view(2, 7, 20).shape == (2, 7, 20)


def own(**options):
    """A call with something that it cannot take."""
    given = {name: torch.randn(1, 2, 4, 8) for name in ("query", "key", "value")} | options
    return ct.attention(given.pop("query"), given.pop("key"), given.pop("value"), **given)


X = torch.randn(1, 4, 2, 8)  # as flash-attention has it
PACKED, BORDERS = torch.randn(4, 2, 8), torch.tensor([0, 4])
WORDS = {
    r"torch\.float32, torch\.float64 and torch\.float32: give three of one dtype": lambda: own(key=X.double()),
    r"are torch\.int64, .* as by x\.to\(torch\.float32\)": lambda: own(
        **dict.fromkeys(("query", "key", "value"), X.long())
    ),
    r"query is ndarray: give a tensor, as by torch.as_tensor": lambda: own(query=X.numpy()),
    r"with layout torch\.sparse_coo: .* give x\.cpu\(\), or x\.to_dense\(\)": lambda: own(query=X.to_sparse()),
    r"mask is a tensor of shape \(4, 4\): give clearhead\.dense\(mask\.numpy\(\)\)": lambda: own(mask=torch.ones(4, 4)),
    r"dense\(array\(3, 3\)\) does not fit this attention": lambda: own(mask=dense(np.ones((3, 3), bool))),
    r"dense\(array\(5, 3\)\) does not fit": lambda: own(mask=causal() | dense(np.ones((5, 3), bool))),
    r"bias\(array\(3, 3\)\) does not fit": lambda: own(score=bias(np.ones((3, 3)))),
    r"dense\(array\(3, 9\)\) does not fit": lambda: ct.flex_attention(X, X, X, block_mask=dense(np.ones((3, 9), bool))),
    r"q is ndarray: give a tensor, as by torch\.as_tensor\(q\)": lambda: ct.flash_attn_func(X.numpy(), X, X),
    r"window_size=5: give \(left, right\)": lambda: ct.flash_attn_func(X, X, X, window_size=5),
    r"dropout_p=1\.5: give a Python number from 0 to 1": lambda: ct.flash_attn_func(X, X, X, dropout_p=1.5),
    r"cu_seqlens_q of shape \(1, 2\) .* give integers, \(sequences \+ 1,\)": lambda: ct.flash_attn_varlen_func(
        PACKED, PACKED, PACKED, BORDERS[None], BORDERS
    ),
    r"cu_seqlens_k of shape \(2,\) and torch\.float32: give integers": lambda: ct.flash_attn_varlen_func(
        PACKED, PACKED, PACKED, BORDERS, BORDERS.float()
    ),
    r"seqused_k of shape \(2,\) and torch\.int64: give integers, \(1,\)": lambda: ct.flash_attn_varlen_func(
        PACKED, PACKED, PACKED, BORDERS, BORDERS, seqused_k=torch.tensor([1, 2])
    ),
    r"x of shape \(3, 5\): give \(\.\.\., n, 8\)": lambda: nn.SelfAttention(8, 2)(torch.ones(3, 5)),
    r"x of shape \(8,\): give": lambda: nn.SelfAttention(8, 2)(torch.ones(8)),
    r"the layer takes 8, 8 and 8 dims": lambda: nn.MultiheadAttention(8, 2)(*[torch.ones(1, 3, 7)] * 3),
    r"as many values as keys": lambda: nn.MultiheadAttention(8, 2)(*[torch.ones(n, 1, 8) for n in (3, 4, 5)]),
    r"and equal batches": lambda: nn.MultiheadAttention(8, 2)(*[torch.ones(3, n, 8) for n in (1, 2, 2)]),
    r"axes do not broadcast \(\(1, 1, 2, 3\), \(4, 1, 2, 3\), \(5": lambda: ct.attention(
        *[torch.ones(n, 1, 2, 3) for n in (1, 4, 5)]
    ),
}


@pytest.mark.parametrize("words", WORDS)
def test_errors_say_what_to_do(words):
    with pytest.raises(InputError, match=words):
        WORDS[words]()


STRANGE = {
    "a list": [[1.0]], "none": None, "words": "x", "an array": np.ones((2, 4, 6, 8), np.float32),
    "no axes": torch.tensor(1.0), "one axis": torch.ones(8), "five axes": torch.ones(1, 1, 1, 6, 8),
    "whole numbers": torch.ones(2, 4, 6, 8, dtype=torch.long), "complex": torch.ones(2, 4, 6, 8, dtype=torch.complex64),
    "no dims": torch.ones(2, 4, 6, 0), "eight bits": torch.ones(2, 4, 6, 8).to(torch.float8_e4m3fn),
    "float64": torch.ones(2, 4, 6, 8, dtype=torch.float64),
}  # fmt: skip
SURFACES = {
    "attention": (ct.attention, 3), "flex": (ct.flex_attention, 3), "flash": (ct.flash_attn_func, 3),
    "packed": (ct.flash_attn_qkvpacked_func, 1), "SelfAttention": (lambda x: nn.SelfAttention(8)(x), 1),
    "MultiheadAttention": (lambda *x: nn.MultiheadAttention(8, 2)(*x), 3),
    "a cache": (ct.flash_attn_with_kvcache, 3), "rotary": (lambda *x: rotary.apply_rotary_emb(*x), 3),
    "varlen": (lambda *x: ct.flash_attn_varlen_func(*x, BORDERS, BORDERS), 3),  # type: ignore[call-arg]
    "borders": (lambda x: ct.flash_attn_varlen_func(PACKED, PACKED, PACKED, x, BORDERS), 1),
}  # fmt: skip


@pytest.mark.parametrize("given", STRANGE.values(), ids=STRANGE)
@pytest.mark.parametrize("surface", SURFACES.values(), ids=SURFACES)
def test_no_words_but_ours_are_told(given, surface):
    function, count = surface
    for place in range(count):
        operands = [torch.ones(2, 4, 6, 8)] * count
        operands[place] = given
        with contextlib.suppress(ClearheadError):
            function(*operands)


SLOPES = torch.nn.Parameter(torch.ones(2))


class Held:
    slopes = SLOPES

    def rule(self, score, batch, head, query, key):
        return score * self.slopes[head]


@pytest.mark.parametrize(
    "rule", [lambda score, batch, head, query, key: score * SLOPES[head], Held().rule], ids=["named", "held"]
)
def test_a_rule_that_reads_a_tensor_is_told_where_tensors_can_be_read(rule):
    q = torch.ones(1, 2, 4, 8)
    with pytest.raises(
        TraceError, match=r"test_torch\.py, line .*torch tensor.*\.detach\(\)\.cpu\(\)\.numpy.*flex_attention"
    ):
        ct.attention(q, q, q, score=rule)


def test_rules_read_arrays_that_no_tensor_can_share():
    """Their numbers are copied: read backwards, beside others in records, of 16 bits that torch calls another name."""
    rng = np.random.default_rng(5)
    table = rng.standard_normal((9, 9)).astype(np.float32)
    records = np.zeros((9, 9), [("flag", np.int8), ("number", np.float32)])
    records["number"] = table
    x = torch.from_numpy(rng.standard_normal((2, 9, 8)).astype(np.float32))
    for array in (table[::-1], records["number"], table.astype(ml_dtypes.bfloat16)):
        expected = clearhead.attention(*[x.numpy()] * 3, score=clearhead.bias(array))
        assert ct.attention(x, x, x, score=clearhead.bias(array)).numpy().tobytes() == expected.tobytes()


@pytest.mark.parametrize("made", [clearhead.bias, clearhead.dense, clearhead.alibi])
def test_tensors_that_numpy_cannot_read(made):
    for x in (torch.zeros(3, 3, requires_grad=True), torch.zeros(3, 3, device="meta"), torch.zeros(3, 3).bfloat16()):
        with pytest.raises(clearhead.InputError, match=r"got a Tensor that numpy cannot read .*\.detach\(\)\.cpu\(\)"):
            made(x)
