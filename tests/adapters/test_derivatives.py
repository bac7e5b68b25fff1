"""Higher derivatives in torch, in every mixture of forward and reverse, against the formula; and their memory."""

import tracemalloc

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from clearhead import bias, causal, softcap  # noqa: E402
from clearhead.adapters import torch as ct  # noqa: E402
from clearhead.adapters.torch import operator  # noqa: E402
from clearhead.adapters.torch.reference import attention_formula  # noqa: E402
from clearhead.adapters.torch.rule_names import split_rules  # noqa: E402

EVERY = tuple(range(5))
f = torch.func
WAYS = {
    "reverse over reverse": lambda g: f.jacrev(f.jacrev(g, EVERY), EVERY),
    "forward over reverse": lambda g: f.jacfwd(f.jacrev(g, EVERY), EVERY),
    "reverse over forward": lambda g: f.jacrev(f.jacfwd(g, EVERY), EVERY),
    "forward over forward": lambda g: f.jacfwd(f.jacfwd(g, EVERY), EVERY),
    "reverse three times": lambda g: f.grad(squares(f.grad(squares(f.grad(g, EVERY)), EVERY)), EVERY),
    "forward over twice reverse": lambda g: f.jacfwd(f.grad(squares(f.grad(g, EVERY)), EVERY), EVERY),
}


def squares(function):
    """The sum of all squares that a function gives."""
    return lambda *x: sum((y**2).sum() for y in function(*x))


def operands():
    """Query, key, value, sink and a table of float64."""
    torch.manual_seed(0)
    shapes = (1, 2, 3, 3), (1, 1, 3, 3), (1, 1, 3, 2), (2,), (3, 3)
    return tuple(torch.randn(shape, dtype=torch.float64) for shape in shapes)


@pytest.mark.parametrize("way", WAYS)
def test_every_order_and_mixture(way):
    rule, _ = split_rules(causal(), [bias(np.zeros((3, 3))), softcap(2.0)])

    def ours(q, k, v, sink, table):
        return sum((y**3).sum() for y in operator.attend(q, k, v, [table], sink, rule.name, 0.4))

    def formula(q, k, v, sink, table):
        return sum((y**3).sum() for y in attention_formula(q, k, v, [table], sink, rule, 0.4))

    for a, b in zip(flat(WAYS[way](ours)(*operands())), flat(WAYS[way](formula)(*operands())), strict=True):
        torch.testing.assert_close(a, b)


def flat(x):
    """The tensors in nested tuples."""
    return [x] if isinstance(x, torch.Tensor) else [y for part in x for y in flat(part)]


def test_checked_both_ways_by_finite_differences():
    q, k, v, sink, _ = (x.requires_grad_() for x in operands())

    def attend(*x):
        return ct.attend(*x[:3], sink=x[3])

    assert torch.autograd.gradgradcheck(attend, (q, k, v, sink), check_fwd_over_rev=True, check_rev_over_rev=True)


def test_hessian_vector_products_of_narrow_tensors():
    q = torch.randn(1, 2, 20, 8, dtype=torch.bfloat16, requires_grad=True)
    wide = q.detach().double().requires_grad_()
    moved = []
    for x in (q, wide):
        (first,) = torch.autograd.grad(ct.attention(x, x, x).double().pow(2).sum(), x, create_graph=True)
        moved.append(torch.autograd.grad(first.double().pow(2).sum(), x)[0].double())
    assert (moved[0] - moved[1]).abs().max() < 0.03 * moved[1].abs().max()


def test_second_derivatives_need_no_table_of_scores():
    q, scores = torch.randn(1, 1, 4096, 8, requires_grad=True), 4 * 4096**2
    (first,) = torch.autograd.grad(ct.attention(q, q, q).sum(), q, create_graph=True)
    tracemalloc.start()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as seen:
        first.pow(2).sum().backward()
    peak = tracemalloc.get_traced_memory()[1]  # numpy's
    tracemalloc.stop()
    assert peak < scores / 16
    assert 0 < max(abs(event.self_cpu_memory_usage) for event in seen.events()) < scores / 16
