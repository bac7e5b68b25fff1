"""Dropout: which pairs are kept is one answer, in numpy, in torch and in every kernel; and what follows from it."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import clearhead  # noqa: E402
from clearhead.adapters.torch import sdpa  # noqa: E402
from clearhead.adapters.torch.dropout import dropout_rule  # noqa: E402
from clearhead.adapters.torch.reference import attention_formula  # noqa: E402
from clearhead.adapters.torch.rule_names import rule_named, split_rules  # noqa: E402
from clearhead.machine.compile import kernels  # noqa: E402
from clearhead.machine.target import native_isas  # noqa: E402
from clearhead.rules.masks import visible  # noqa: E402
from clearhead.rules.threefry import BITS, threefry_number  # noqa: E402
from clearhead.testing import using_isa  # noqa: E402

SHAPE = 2, 3, 70, 130  # batches, heads, queries, keys


def kept(p, seed=5):
    """Which pairs are kept: read off the formula's words one by one."""
    batches, heads, queries, keys = SHAPE
    line = np.arange(batches * heads * queries).reshape(batches, heads, queries, 1)
    return threefry_number(seed, seed + 1, line, np.arange(keys)) >= round(p * 2**BITS)


def rule_and_table(p, seed=5):
    rule = rule_named(dropout_rule(split_rules(clearhead.full(), ())[0].name, 0))
    return rule, np.array([seed, seed + 1, round(p * 2**BITS), *SHAPE[1:3]])


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_every_kernel_keeps_the_same_pairs(p):
    batches, heads, queries, keys = SHAPE
    rule, table = rule_and_table(p)
    mask, _ = rule.filled([table])
    np.testing.assert_array_equal(visible(mask, queries, keys, lead=(batches, heads)), kept(p))
    for isa in native_isas():
        for dtype in (np.float32, np.float64):
            for rows in (slice(None), slice(0, 2)):  # by the forward and by the decode kernel
                q = np.zeros((batches, heads, queries, 16), dtype)[:, :, rows]
                k, v = np.zeros((batches, heads, keys, 16), dtype), np.zeros((batches, heads, keys, 144), dtype)
                v[..., :keys] = np.eye(keys)
                own = table if rows == slice(None) else np.array([*table[:4], 2])
                with using_isa(isa):
                    got = clearhead.attention(q, k, v, mask=rule.filled([own])[0])[..., :keys] > 0
                line = np.arange(batches * heads * q.shape[2]).reshape(batches, heads, -1, 1)
                np.testing.assert_array_equal(got, threefry_number(5, 6, line, np.arange(keys)) >= round(p * 2**BITS))


def test_torch_operations_keep_the_same_pairs():
    batches, heads, queries, keys = SHAPE
    rule, table = rule_and_table(0.3)
    q, k = torch.zeros(batches, heads, queries, 2), torch.zeros(batches, heads, keys, 2)
    v = torch.eye(keys).expand(batches, heads, keys, keys)
    output, _ = attention_formula(q, k, v, [torch.from_numpy(table)], None, rule, 1.0)
    np.testing.assert_array_equal(output.numpy() > 0, kept(0.3))


@pytest.mark.parametrize("is_causal", [False, True])
def test_output_and_gradients_are_those_of_dropped_weights(is_causal):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 40, 8, dtype=torch.float64, requires_grad=True) for _ in range(3))
    torch.manual_seed(11)
    got = sdpa.scaled_dot_product_attention(q, k, v, dropout_p=0.4, is_causal=is_causal)
    torch.manual_seed(11)
    key = torch.randint(1 << 31, (2,)).tolist()
    line = np.arange(240).reshape(2, 3, 40, 1)
    keep = torch.from_numpy(threefry_number(*key, line, np.arange(40)) >= round(0.4 * 2**BITS))  # type: ignore[call-arg]
    scores = q @ k.mT / 8**0.5
    if is_causal:
        scores = scores.masked_fill(~torch.ones(40, 40, dtype=torch.bool).tril(), -torch.inf)
    want = (scores.softmax(-1) * keep / 0.6) @ v
    torch.testing.assert_close(got, want)
    d = torch.randn_like(got)
    for a, b in zip(torch.autograd.grad(got, (q, k, v), d), torch.autograd.grad(want, (q, k, v), d), strict=True):
        torch.testing.assert_close(a, b)


def test_recomputed_in_a_checkpoint_and_drawn_anew_by_another_seed():
    q = torch.randn(1, 2, 64, 8, requires_grad=True)

    def loss(q):
        return sdpa.scaled_dot_product_attention(q, q, q, dropout_p=0.5).pow(2).sum()

    def again(q):
        return torch.utils.checkpoint.checkpoint(loss, q, use_reentrant=False)

    found = []
    for seed, way in ((3, loss), (3, again), (4, loss)):
        torch.manual_seed(seed)
        found.append(torch.autograd.grad(way(q), q)[0])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_no_kernel_is_compiled_for_another_seed_or_probability():
    q = torch.randn(1, 2, 64, 8)
    sdpa.scaled_dot_product_attention(q, q, q, dropout_p=0.5)
    before = len(kernels.known)
    for p in (0.1, 0.2):
        sdpa.scaled_dot_product_attention(q, q, q, dropout_p=p)
    assert len(kernels.known) == before
