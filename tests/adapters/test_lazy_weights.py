"""Lazy weights are the tensor that torch would give to all who ask, and build no matrix for what needs none."""

import copy
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from clearhead import InputError, causal, softcap  # noqa: E402
from clearhead.adapters.torch.attention_api import rule_and_tables  # noqa: E402
from clearhead.adapters.torch.weights import LazyWeights, weights_of  # noqa: E402

RULE = rule_and_tables(causal(), softcap(5.0))[0]
SINK = torch.tensor([0.5, -1.0, 2.0, 0.0])


def operands(dtype=torch.float64, grad=False, length=7):
    torch.manual_seed(0)
    q = torch.randn(2, 4, length, 8, dtype=dtype, requires_grad=grad)
    k = torch.randn(2, 2, length, 8, dtype=dtype, requires_grad=grad)
    return q, k


def lazy(q, k, average=False):
    return weights_of(q, k, (), SINK.to(q.dtype), RULE, 0.3, average=average)


def right(q, k, average=False):
    """The textbook's, in torch."""
    wide = torch.float32 if q.dtype is torch.bfloat16 else q.dtype
    s = 5 * torch.tanh(0.3 * q.to(wide) @ k.to(wide).repeat_interleave(2, 1).mT / 5)
    s = s.masked_fill(~torch.ones(s.shape[-2:], dtype=torch.bool).tril(), -torch.inf)
    sink = SINK.to(wide)[:, None, None].expand(2, 4, s.shape[-2], 1)
    w = torch.cat([s, sink], -1).softmax(-1)[..., :-1]
    return (w.mean(1) if average else w).to(q.dtype)


V = torch.linspace(-1, 1, 21).reshape(7, 3)
ASKS = {
    "a sequence": lambda w: w[0], "a head": lambda w: w[0, 1], "a row": lambda w: w[..., 3, :],
    "the last row": lambda w: w[..., -1, :], "a number": lambda w: w[..., 3, 2],
    "the last number": lambda w: w[(-1,) * w.ndim], "slices": lambda w: w[..., 1:4, 2:],
    "steps": lambda w: w[..., ::2, :], "a new axis": lambda w: w[None], "truths": lambda w: w[w > 0.2],
    "a list": lambda w: w[[0, 1]], "some rows": lambda w: w[..., [0, 3], :],
    "a tensor of rows": lambda w: w[..., torch.tensor([0, 3])], "a tensor of one": lambda w: w[torch.tensor(1)],
    "squeeze": lambda w: w[:1].squeeze(0), "squeeze all": lambda w: w[:1].squeeze(),
    "unsqueeze": lambda w: w.unsqueeze(0), "unsqueeze behind": lambda w: w.unsqueeze(-1),
    "select": lambda w: w.select(1, 0), "unbind": lambda w: torch.stack(w.unbind(0)),
    "iteration": lambda w: torch.stack(list(w)), "sum": lambda w: w.sum(), "sum of rows": lambda w: w.sum(-1),
    "what keys receive": lambda w: w.sum(-2), "kept axes": lambda w: w.sum((0, -1), keepdim=True),
    "mean": lambda w: w.mean(), "mean of heads": lambda w: w.mean(1), "rows of a mean": lambda w: w.mean(-3)[..., 2:],
    "mean of a batch": lambda w: w.mean(0, keepdim=True), "amax": lambda w: w.amax(-1), "max": lambda w: w.max(),
    "max of rows": lambda w: w.max(-1).values, "where keys are strongest": lambda w: w.max(-2).indices,
    "max of a batch": lambda w: w.max(0).indices, "torch.max": lambda w: torch.max(w, dim=-1)[1],
    "torch.mean": lambda w: torch.mean(w, dim=0), "max of two": lambda w: torch.max(w, w * 2),
    "axis": lambda w: w.sum(axis=-2), "product": lambda w: w @ V.to(w.dtype), "rollout": lambda w: w @ w,
    "torch.matmul": lambda w: torch.matmul(w, V.to(w.dtype)), "detach": lambda w: w.detach()[0],
    "float": lambda w: w.float(), "to": lambda w: w.to(torch.float64), "to cpu": lambda w: w.to("cpu"),
    "cat": lambda w: torch.cat([w, w]), "stack": lambda w: torch.stack([w, w]), "mT": lambda w: w.mT,
    "numpy": lambda w: torch.from_numpy(w.detach().float().numpy()), "tolist": lambda w: torch.tensor(w.tolist()),
    "arithmetic": lambda w: 1 - 2 * w / (w + 1), "clone": lambda w: w.clone(), "reshape": lambda w: w.reshape(-1),
    "transpose": lambda w: w.transpose(0, 1), "flatten": lambda w: w.flatten(1), "topk": lambda w: w.topk(2).values,
    "einsum": lambda w: torch.einsum("...ij,jk->...ik", w, V.to(w.dtype)), "argmax": lambda w: w.argmax(-1),
    "item": lambda w: torch.tensor(w.sum().item()), "std": lambda w: w.std(), "chunk": lambda w: w.chunk(2)[0],
    "interpolate": lambda w: torch.nn.functional.interpolate(w.reshape(1, -1, 7, 7), 3),
    "as_tensor": lambda w: torch.as_tensor(w) + 0, "contiguous": lambda w: w.cpu().contiguous() * 1,
}  # fmt: skip


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("grad", [False, True])
def test_it_is_the_tensor_that_torch_would_give(ask, average, grad):
    q, k = operands(grad=grad)
    w, wanted = lazy(q, k, average), right(q, k, average)
    assert isinstance(w, LazyWeights)
    assert isinstance(w, torch.Tensor)
    found, expected = ask(w), ask(wanted)
    torch.testing.assert_close(torch.as_tensor(np.asarray(found.detach())), expected.detach())
    assert found.requires_grad == expected.requires_grad
    if expected.requires_grad:
        d = torch.randn_like(expected)
        a, b = (torch.autograd.grad(x, (q, k), d, retain_graph=True) for x in (found, expected))
        torch.testing.assert_close(a, b)


def test_the_dtype_is_the_models():
    q, k = operands(torch.bfloat16)
    w, wanted = lazy(q, k), right(q, k)
    assert w.dtype is w[0, 0, 1].dtype is w.sum(-2).dtype is (w @ V.bfloat16()).dtype is torch.bfloat16
    torch.testing.assert_close(w(), wanted)
    assert w.float().dtype is w.float()[0].dtype is torch.float32
    torch.testing.assert_close(w.float() + 0, right(q.float(), k.float()), atol=1e-6, rtol=1e-5)  # never rounded


LAZILY = {
    "a head": lambda w: w[1, 2], "a row": lambda w: w[..., -1, :], "some rows": lambda w: w[0, :, [3, 900]],
    "sum": lambda w: w.sum(-2), "mean": lambda w: w.mean(-1), "max": lambda w: w.max(-1), "amax": lambda w: w.amax(-2),
    "product": lambda w: w @ torch.ones(1000, 3, dtype=w.dtype), "mean of heads": lambda w: w.mean(1),
    "a row of a mean": lambda w: w.mean(1)[..., 5, :], "unbind": lambda w: w.unbind(1),
    "squeeze": lambda w: w.squeeze(), "summary": lambda w: w.summary("entropy"), "map": lambda w: w.map(size=8),
    "detach": lambda w: w.detach(),
}  # fmt: skip


@pytest.mark.parametrize("ask", LAZILY.values(), ids=LAZILY)
def test_some_answers_never_build_the_matrix(ask, monkeypatch):
    monkeypatch.setenv("CLEARHEAD_MEMORY", "4")  # MiB, of 61
    w = lazy(*operands(length=1000))
    ask(w)
    assert w.known is None


@pytest.mark.parametrize("grad", [False, True])
def test_above_the_bound_the_matrix_is_refused_with_a_way_out(grad, monkeypatch):
    monkeypatch.setenv("CLEARHEAD_MEMORY", "4")
    w = lazy(*operands(length=1000, grad=grad))
    for ask in (w.__call__, lambda: w + 1, lambda: torch.stack([w, w]), lambda: w.std(), lambda: w[0] * 1):
        with pytest.raises(InputError, match=r"62 MiB|31 MiB") as told:
            ask()
        assert "use w[..., i, :], w @ v" in str(told.value)
    with torch.no_grad():
        advised = w[..., 3, :], w.mean(1), w.sum(-2), w.amax(-1), w @ torch.ones(1000, 2, dtype=w.dtype)
    assert all(x.shape[-1] in (2, 1000) for x in advised)


def test_above_the_bound_rows_and_products_have_gradients(monkeypatch):
    q, k = operands(length=1000, grad=True)
    w, wanted, v = lazy(q, k), right(q, k), torch.randn(2, 4, 1000, 3, dtype=q.dtype, requires_grad=True)
    monkeypatch.setenv("CLEARHEAD_MEMORY", "4")
    for ask in (lambda w: w[1, 2, 700], lambda w: w[..., 5, 1:4], lambda w: w @ v):
        d = torch.randn_like(ask(wanted))
        a, b = (torch.autograd.grad(ask(x), (q, k), d, retain_graph=True) for x in (w, wanted))
        torch.testing.assert_close(a, b)
    assert w.known is None
    monkeypatch.delenv("CLEARHEAD_MEMORY")
    head = w[1, 2]
    torch.testing.assert_close(head() if isinstance(head, LazyWeights) else head, wanted[1, 2])


def test_second_derivatives():
    q, k = operands(grad=True)
    found = []
    for w in (lazy(q, k), right(q, k)):
        first = torch.autograd.grad(w.square().sum() + w[0, 1, 3].prod(), (q, k), create_graph=True)
        found.append(torch.autograd.grad(sum(x.square().sum() for x in first), (q, k)))
    torch.testing.assert_close(*found)


def test_changes_in_place_are_kept_and_those_of_operands_are_told():
    q, k = operands()
    w = lazy(q, k)
    w[0, 0] = 7.0
    assert (w[0, 0] == 7).all()
    assert (w.sum(-1)[0, 0] == 49).all()
    w = lazy(q, k)
    k.mul_(2)
    for ask in (w.__call__, lambda: w[0, 0, 1], lambda: w.summary("entropy")):
        with pytest.raises(InputError, match=r"the keys of shape \(2, 2, 7, 8\) were changed in place"):
            ask()


def test_copies_pickles_and_numpy_hold_the_numbers():
    w = lazy(*operands())
    for other in (copy.deepcopy(w), copy.copy(w), pickle.loads(pickle.dumps(w))):  # noqa: S301
        assert type(other) is torch.Tensor
        assert torch.equal(other, w)
    learned = lazy(*operands(grad=True))
    assert pickle.loads(pickle.dumps(learned)).requires_grad  # noqa: S301
    assert f"{w[0, 1, 2, 1]:.3f}" == f"{float(w()[0, 1, 2, 1]):.3f}"
    assert np.asarray(w, dtype=np.float32).dtype == np.float32
    assert repr(w) == "LazyWeights((2, 4, 7, 7))"


def test_mapped_and_traced_they_are_built():
    q, k = operands()
    found = torch.vmap(lambda x: lazy(x, k) + 0)(q[None])
    torch.testing.assert_close(found[0], right(q, k))
    gradient = torch.func.grad(lambda x: lazy(x, k).square().sum())(q)
    torch.testing.assert_close(gradient, torch.func.grad(lambda x: right(x, k).square().sum())(q))


def test_what_takes_weights_takes_them():
    pytest.importorskip("matplotlib")
    from clearhead import alignment, flow, plot, rollout

    w = lazy(*operands())
    own = w.weights
    assert np.array_equal(rollout([w, w]), rollout([own, own]))
    assert np.array_equal(flow([w[0], w[0]], 3, [0, 1]), flow([own[0], own[0]], 3, [0, 1]))
    assert np.array_equal(alignment(w[0], smooth=1).keys, alignment(own[0], smooth=1).keys)
    for draw in (plot.heads, plot.profile, plot.received, lambda x: plot.heat(x[0, 1]), lambda x: plot.row(x[0, 1], 3)):
        assert type(draw(w)) is type(draw(own))
    with pytest.raises(InputError, match="this is Tensor, not weights"):
        rollout([w()])
