"""Small calls of torch's attention: straight from memory with the same bits, or not at all where more is asked for."""

import warnings
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch.autograd import forward_ad
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import clearhead
from clearhead import InputError
from clearhead.adapters import torch as ct
from clearhead.adapters.torch import direct, host, sdpa
from clearhead.adapters.torch.attention_api import rule_and_tables, several
from clearhead.adapters.torch.known_launches import run_at
from clearhead.engine.launch_cache import launches
from clearhead.testing import using_isa

attend = ct.scaled_dot_product_attention


def counted(monkeypatch, module):
    """The calls that a module runs straight from memory."""
    calls = []

    def run(launch, *tensors):
        calls.append(launch)
        run_at(launch, *tensors)

    monkeypatch.setattr(module, "run_at", run)
    return calls


@pytest.fixture
def ran(monkeypatch):
    """The calls of which only the output was wanted."""
    return counted(monkeypatch, direct)


@pytest.fixture
def ran_with_sums(monkeypatch):
    """The calls whose log-sum-exp was wanted too."""
    return counted(monkeypatch, host)


def tensors(*shapes, dtype=torch.float32):
    torch.manual_seed(0)
    return [torch.randn(shape).to(dtype) for shape in shapes]


def of_arrays(x, rule, scale):
    """Output and log-sum-exp by way of arrays, with nothing known beforehand."""
    q, k, v = x
    output, lse, _ = host.from_arrays(q, k, v, [], None, rule, q.shape[-1] ** -0.5 if scale is None else scale)
    return torch.from_numpy(output).to(q.dtype), torch.from_numpy(lse)


def by_operator(q, k, v, *, is_causal=False, scale=None, enable_gqa=False):
    return of_arrays((q, k, v), sdpa.CAUSAL if is_causal else sdpa.FULL, scale)[0]


X = (2, 4, 9, 16)
KINDS = {
    "full": ([X, X, X], {}),
    "causal": ([X, X, X], {"is_causal": True}),
    "scale": ([X, X, X], {"scale": -0.5, "is_causal": True}),
    "lengths": ([X, (2, 4, 300, 16), (2, 4, 300, 5)], {}),
    "shared heads": ([(2, 8, 9, 16), X, X], {"enable_gqa": True}),
    "one batch of keys": ([X, (1, 4, 9, 16), (1, 4, 9, 16)], {}),
    "decode": ([(2, 4, 1, 16), (2, 4, 5000, 16), (2, 4, 5000, 16)], {}),
    "long enough for threads": ([(1, 2, 600, 16)] * 3, {"is_causal": True}),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_bits_and_layout_are_those_of_the_operator(kind, dtype, ran):
    shapes, options = KINDS[kind]
    q, k, v = tensors(*shapes, dtype=dtype)
    for x in (
        (q, k, v),
        [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)],
        (q.mT.contiguous().mT, k, v),
        (q, k.mT.contiguous().mT, v),
        (q, k, v.mT.contiguous().mT),
    ):
        want = by_operator(*x, **options)
        for _ in range(2):  # prepared, then found
            found = attend(*x, **options)
            assert found.dtype is dtype
            assert found.stride() == want.stride()
            assert torch.equal(found, want)
    assert len(ran) == 10


RULES: dict[str, dict[str, Any]] = {
    "causal": {},
    "window": {"mask": clearhead.window(3), "scale": 0.5},
    "documents": {"mask": clearhead.documents([4, 5]) & clearhead.causal()},
    "function": {"mask": clearhead.window(5, 5), "score": [lambda s, b, h, q, k: s * (1 + h) - abs(q - k)]},
}


def gradients(function, *x, **rules):
    x = [y.clone().requires_grad_() for y in x]
    results = function(*x, **rules)
    sum((result.float() ** 2).sum() for result in results).backward()
    return [y.detach() for y in results] + [y.grad for y in x]


@pytest.mark.parametrize(("kind", "dtype"), [*zip(RULES, [torch.bfloat16, torch.float32] * 2, strict=True)], ids=str)
def test_clearheads_rules_have_the_same_bits_on_every_way(kind, dtype, ran, ran_with_sums):
    rules = RULES[kind]
    x = tensors((2, 8, 9, 16), X, X, dtype=dtype)
    name, _ = rule_and_tables(rules.get("mask", clearhead.causal()), *several(rules.get("score", ())))
    want = of_arrays(x, name, rules.get("scale"))
    launches.clear()
    ct.attend(*x, **rules)
    assert not ran_with_sums
    for found in ([ct.attention(*x, **rules)], ct.attend(*x, **rules)):
        for a, b in zip(found, want, strict=False):
            assert a.stride() == b.stride()
            assert torch.equal(a, b)
    assert (len(ran), len(ran_with_sums)) == (1, 1)


def test_gradients_are_the_same_once_a_launch_is_known(ran_with_sums):
    x = tensors((2, 8, 9, 16), X, X)
    launches.clear()
    prepared, found = gradients(ct.attend, *x), gradients(ct.attend, *x)
    assert len(ran_with_sums) == 1
    assert all(map(torch.equal, prepared, found))


def test_a_rule_that_fails_is_an_error_each_time():
    x = tensors(X, X, X)
    for function in (ct.attention, ct.attend) * 2:
        with pytest.raises(clearhead.TraceError, match="divides by 0, for query 3"):
            function(*x, score=fails)


def fails(s, b, h, q, k):
    return s + k // (q - 3)


def test_a_call_sees_the_numbers_that_a_rule_reads_now():
    factor = 1.0

    def rule(s, b, h, q, k):
        return s * factor

    x = tensors(X, X, X)
    before = ct.attention(*x, score=rule)
    factor = 3.0
    assert torch.equal(ct.attention(*x, score=rule), ct.attention(*x, score=lambda s, b, h, q, k: s * 3.0))
    assert not torch.equal(ct.attention(*x, score=rule), before)


def test_a_narrower_instruction_set_is_obeyed(ran):
    q, k, v = tensors(X, X, X)
    want = attend(q, k, v)
    with using_isa("generic"):
        assert torch.equal(attend(q, k, v), want)
    assert [launch.isa for launch in ran][1] == "generic"


def test_parameters_run_so_without_gradients_and_in_inference(ran):
    q, k, v = map(torch.nn.Parameter, tensors(X, X, X))
    want = by_operator(q, k, v)
    with torch.no_grad():
        assert torch.equal(attend(q, k, v), want)
    with torch.inference_mode():
        assert attend(q, k, v).is_inference()
    assert len(ran) == 2


# Calls of which more than the output is wanted. Each function raises or fails if it runs straight from memory.


def of_gradients(n):
    def wanted(*x):
        x[n].requires_grad_()
        assert attend(*x).requires_grad

    return wanted


def compiled(*x):
    torch._dynamo.reset()
    assert torch.equal(torch.compile(attend, fullgraph=True, backend="eager")(*x), attend(*x))


def traced(*x):
    graph = torch.jit.trace(attend, x)
    other = [y + 1 for y in x]
    assert torch.equal(graph(*other), attend(*other))


def function_mode(*x):
    class Seen(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            functions.append(function)
            return function(*args, **(kwargs or {}))

    functions = []
    with Seen():
        attend(*x)
    assert attend in functions


def dispatch_mode(*x):
    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            functions.append(str(function))
            return function(*args, **(kwargs or {}))

    functions = []
    with Seen():
        attend(*x)
    assert "clearhead.attention.default" in functions


def transform(*x):
    number = torch.func.grad(lambda n: n * attend(*x).sum())(torch.tensor(1.0))
    torch.testing.assert_close(number, attend(*x).sum())


def profiler(*x):
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        attend(*x)
    assert "clearhead::attention" in {event.name for event in seen.events()}


def subclass(*x):
    class Named(torch.Tensor):
        pass

    assert type(attend(x[0].as_subclass(Named), *x[1:])) is Named


def tangent(*x):
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x[0], torch.ones_like(x[0]))
        assert forward_ad.unpack_dual(attend(dual, *x[1:])).tangent is not None


def autocast(*x):
    with torch.autocast("cpu", torch.bfloat16):
        assert attend(*x).dtype is torch.bfloat16


def meta(*x):
    assert attend(*(y.to("meta") for y in x)).is_meta


def negation(*x):
    z = [torch.complex(y, y).conj().imag for y in x]
    assert torch.equal(attend(*z), attend(*(-y for y in x)))


def zeros_of_autograd(*x):
    zero = torch._efficientzerotensor(x[1].shape)
    assert torch.equal(attend(x[0], zero, x[2]), attend(x[0], torch.zeros_like(x[1]), x[2]))


def functional_tensor(*x):
    found = attend(*map(torch._to_functional_tensor, x))
    assert torch.equal(torch._from_functional_tensor(found), attend(*x))


def resized(*x):
    for function in (attend, ct.attention):
        for n in range(3):
            mine = [y.clone() for y in x]
            mine[n].untyped_storage().resize_(0)
            with pytest.raises(InputError, match="no memory"):
                function(*mine)


def changing_scale(*x):
    scale = torch.tensor(1.0)
    attend(*x, scale=scale)
    assert torch.equal(attend(*x, scale=scale.fill_(0.25)), attend(*x, scale=0.25))


def changing_causality(*x):
    is_causal = torch.tensor(True)
    attend(*x, is_causal=is_causal)
    assert torch.equal(attend(*x, is_causal=is_causal.fill_(False)), attend(*x))


def changing_gqa(*x):
    shared, x = torch.tensor(True), (x[0], x[1][:, :2], x[2][:, :2])
    attend(*x, enable_gqa=shared)
    assert torch.equal(attend(*x, enable_gqa=shared), attend(*x, enable_gqa=True))
    with pytest.raises(TypeError, match="must be bool"):
        attend(*x, enable_gqa=shared.fill_(False))


def refused(*x, **options):
    errors = []
    for function in (attend, sdpa.torchs_own):
        with pytest.raises((RuntimeError, TypeError)) as caught:
            function(*x, **options)
        errors.append(str(caught.value))
    assert errors[0] == errors[1]  # so torch refused both


def heads_of_values(q, k, v):
    torch.testing.assert_close(*(f(q, k[:, :2], v, enable_gqa=True) for f in (attend, sdpa.torchs_own)))


def strided_nested(*x):
    q, k, v = (torch.nested.nested_tensor(list(y)) for y in x)
    assert torch.equal(
        attend(q, k, v).to_padded_tensor(0.0), functional.scaled_dot_product_attention(q, k, v).to_padded_tensor(0.0)
    )


def other_ranks(*x):
    for n in (x[0][0], x[0][None]):
        assert torch.equal(attend(n, n, n), by_operator(n, n, n))


NOT_DIRECT = {
    "queries' gradient": of_gradients(0),
    "keys' gradient": of_gradients(1),
    "values' gradient": of_gradients(2),
    "scale": changing_scale,
    "is_causal": changing_causality,
    "enable_gqa": changing_gqa,
    "nested": strided_nested,
    "ranks": other_ranks,
    "unequal heads": lambda q, k, v: refused(q, k[:, :2], v[:, :2]),
    "unequal heads of values": lambda q, k, v: refused(q, k, v[:, :2]),
    "keys and values of unequal heads": heads_of_values,
    "unequal dtypes": lambda q, k, v: refused(q, k.double(), v),
    "no tensor": lambda q, k, v: refused(q.numpy(), k, v),
    "sparse": lambda q, k, v: refused(q, k.to_sparse(), v),
    "mkldnn": lambda q, k, v: refused(q, k.to_mkldnn(), v),
    "empty": lambda q, k, v: attend(q[:, :, :0], k, v),
} | {
    made.__name__.replace("_", " "): made
    for made in (
        compiled,
        traced,
        function_mode,
        dispatch_mode,
        transform,
        profiler,
        subclass,
        tangent,
        autocast,
        meta,
        negation,
        zeros_of_autograd,
        functional_tensor,
        resized,
    )
}


@pytest.mark.parametrize("name", NOT_DIRECT)
def test_whoever_wants_more_than_the_output_gets_it(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        NOT_DIRECT[name](*tensors(X, X, X))


@pytest.mark.parametrize("function", [ct.attention, lambda *x: ct.attend(*x)[0]], ids=["attention", "attend"])
@pytest.mark.parametrize(
    "wants",
    [
        *map(of_gradients, range(3)), traced, dispatch_mode, transform, profiler, tangent, autocast, meta, negation,
        zeros_of_autograd, functional_tensor, resized,
    ],
)  # fmt: skip
def test_so_does_who_calls_clearheads_own(function, wants, monkeypatch):
    monkeypatch.setitem(globals(), "attend", function)
    x = tensors(X, X, X)
    attend(*x)  # known from here on
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wants(*x)


def test_a_watch_sees_what_runs_straight_from_memory(ran):
    class Layer(torch.nn.Module):
        def forward(self, x):
            return functional.scaled_dot_product_attention(x, x, x, is_causal=True)

    (x,), layer = tensors(X), Layer()
    with ct.patch(), torch.no_grad():
        unseen = layer(x)
        with clearhead.watch(layer) as seen:
            assert torch.equal(layer(x), unseen)
    assert len(ran) == 2
    weights = np.asarray(clearhead.weights(x[:1].numpy(), x[:1].numpy()))
    np.testing.assert_array_equal(np.asarray(seen.layer(0).weights), weights[0])
