"""Layers against torch's own: parameters, masks, layouts, and weights that come only when asked for."""

import copy
import itertools
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from clearhead import InputError, ShapeError, full, softcap  # noqa: E402
from clearhead.adapters.torch.nn import LazyWeights, MultiheadAttention, SelfAttention  # noqa: E402
from tests.kernels.combinations import in_turns  # noqa: E402

OPTIONS = [
    {},
    {"batch_first": True},
    {"batch_first": True, "bias": False, "kdim": 6, "vdim": 10},
    {"batch_first": True, "add_bias_kv": True, "add_zero_attn": True},
]
MASKS = list(itertools.product([None, "bool", "float", "heads"], [None, "bool", "float"]))


def pair(**options):
    torch.manual_seed(0)
    theirs = torch.nn.MultiheadAttention(8, 2, dtype=torch.float64, **options)
    ours = MultiheadAttention(8, 2, dtype=torch.float64, **options)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def masks(attn, padding, batch, n, m):
    table = {
        "bool": lambda: torch.rand(n, m) < 0.4,
        "float": lambda: torch.randn(n, m, dtype=torch.float64),
        "heads": lambda: torch.randn(batch * 2, n, m, dtype=torch.float64),
    }
    attn_mask = None if attn is None else table[attn]()
    if attn == "bool":
        attn_mask[:, 0] = False  # every query sees something
    hidden = torch.zeros(batch, m, dtype=torch.bool)
    hidden[1:, m - 2 :] = True
    key_padding = {None: None, "bool": hidden, "float": hidden.double() * -3.5}[padding]
    return {"attn_mask": attn_mask, "key_padding_mask": key_padding}


@pytest.mark.filterwarnings("ignore:Support for mismatched")
# The last options add keys, which masks must leave room for: they meet all masks, the others take turns.
@pytest.mark.parametrize(("masked", "options"), [*in_turns(MASKS, OPTIONS[:3], 1), *in_turns(MASKS, OPTIONS[3:], 1)])
def test_it_is_torchs_layer(masked, options):
    ours, theirs = pair(**options)
    batch, n, m = 3, 5, 7
    shapes = (batch, n, 8), (batch, m, options.get("kdim", 8)), (batch, m, options.get("vdim", 8))
    inputs = [torch.randn(s, dtype=torch.float64) for s in shapes]
    if not options.get("batch_first"):
        inputs = [x.transpose(0, 1) for x in inputs]
    attn, padding = masked
    given = masks(attn, padding, batch, n, m)
    for average in (True, False):
        output, weights = ours(*inputs, average_attn_weights=average, **given)
        wanted, their_weights = theirs(*inputs, average_attn_weights=average, **given)
        torch.testing.assert_close(output, wanted)
        assert isinstance(weights, LazyWeights)
        assert weights.shape == their_weights.shape
        torch.testing.assert_close(weights(), their_weights)
    a = torch.autograd.grad(output.square().sum(), list(ours.parameters()))
    b = torch.autograd.grad(wanted.square().sum(), list(theirs.parameters()))
    for one, other in zip(a, b, strict=True):
        torch.testing.assert_close(one, other)


def test_without_a_batch_and_without_weights():
    ours, theirs = pair()
    x = torch.randn(5, 8, dtype=torch.float64)
    output, weights = ours(x, x, x, need_weights=False)
    torch.testing.assert_close(output, theirs(x, x, x)[0])
    assert weights is None


def test_weights_are_a_tensor_to_all_who_ask():
    ours, theirs = pair(batch_first=True, dropout=0.5)
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    weights, wanted = ours(x, x, x)[1], theirs.eval()(x, x, x)[1]
    state = torch.get_rng_state()
    torch.testing.assert_close(weights(), wanted)  # before dropout
    assert torch.equal(torch.get_rng_state(), state)
    assert weights().data_ptr() == weights().data_ptr()  # computed once
    assert len(weights) == len(list(weights)) == 2
    for ask in (
        lambda w: w[0, -1], lambda w: w.mean(), lambda w: 1 - 2 * w / (w + 1), lambda w: w @ w, lambda w: w > 0.2,
        lambda w: torch.stack([w, w]), lambda w: torch.einsum("bij,bjd->bid", w, x), lambda w: x.mT @ w, torch.sum,
        lambda w: w.detach().numpy().sum(), lambda w: torch.as_tensor(w).detach(), lambda w: float(w.detach().sum()),
    ):  # fmt: skip
        torch.testing.assert_close(ask(weights), ask(wanted))
    assert weights.dtype is torch.float64
    np.testing.assert_allclose(np.asarray(weights), wanted.detach())
    for other in (copy.deepcopy(weights), pickle.loads(pickle.dumps(weights))):  # noqa: S301
        assert type(other) is torch.Tensor
        assert torch.equal(other, weights.detach())


def test_weights_have_gradients_and_remember_their_call():
    ours, theirs = pair(batch_first=True)
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    (_, weights), (_, wanted) = ours(x, x, x), theirs(x, x, x)
    d = torch.randn_like(wanted)
    parameters = [ours.in_proj_weight, theirs.in_proj_weight]
    a, b = (torch.autograd.grad((w * d).sum(), p)[0] for w, p in zip((weights, wanted), parameters, strict=True))
    torch.testing.assert_close(a, b)
    weights = ours(x, x, x)[1]
    with torch.no_grad():
        ours.in_proj_weight.zero_()
    torch.testing.assert_close(weights(), wanted)


def test_a_query_that_sees_nothing_has_no_weights():
    ours, _ = pair(batch_first=True)
    x = torch.randn(1, 3, 8, dtype=torch.float64)
    weights = ours(x, x, x, key_padding_mask=torch.ones(1, 3, dtype=torch.bool))[1]
    assert (weights == 0).all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(weights.sum(), ours.in_proj_weight))


WRONG = [
    ({"key_padding_mask": torch.zeros(3, 6)}, r"key_padding_mask has shape \(3, 6\): give \(3, 7\)"),
    ({"key_padding_mask": torch.zeros(3, 9)}, r"give \(3, 7\)"),
    ({"key_padding_mask": torch.zeros(1, 7)}, r"give \(3, 7\)"),
    ({"attn_mask": torch.zeros(5, 6)}, r"attn_mask has shape \(5, 6\): give \(5, 7\) or \(6, 5, 7\)"),
    ({"attn_mask": torch.zeros(1, 7)}, r"give \(5, 7\) or"),
    ({"attn_mask": torch.zeros(3, 5, 7)}, r"give \(5, 7\) or"),
    ({"attn_mask": torch.zeros(3, 2, 5, 7)}, r"give \(5, 7\) or"),
    ({"attn_mask": torch.zeros(5, 7, dtype=torch.int64)}, "torch.int64"),
    ({"is_causal": True}, "is_causal=True is a hint about attn_mask"),
]


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize(("given", "message"), WRONG, ids=range(len(WRONG)))
def test_masks_that_torch_refuses(given, message, need_weights):
    ours, theirs = pair(batch_first=True)
    q, k = torch.randn(3, 5, 8, dtype=torch.float64), torch.randn(3, 7, 8, dtype=torch.float64)
    with pytest.raises((AssertionError, RuntimeError)):
        theirs(q, k, k, need_weights=need_weights, **given)
    with pytest.raises(InputError, match=message):
        ours(q, k, k, need_weights=need_weights, **given)
    with pytest.raises(ShapeError, match="batch axis"):
        ours(q[0], k, k)


@pytest.mark.parametrize("key_heads", [None, 2])
def test_the_textbooks_layer(key_heads):
    torch.manual_seed(0)
    layer = SelfAttention(16, 4, key_heads=key_heads, score=softcap(2.0)).double()
    x = torch.randn(2, 6, 16, dtype=torch.float64)
    q, k, v = (f(x).unflatten(-1, (-1, 4)).transpose(1, 2) for f in (layer.query, layer.key, layer.value))
    k, v = (y.repeat_interleave(4 // y.shape[1], 1) for y in (k, v))
    scores = 2 * torch.tanh(q @ k.transpose(-1, -2) / 2 / 2)
    scores = scores.masked_fill(torch.ones(6, 6).triu(1).bool(), -torch.inf)
    wanted = layer.output((scores.softmax(-1) @ v).transpose(1, 2).flatten(-2))
    torch.testing.assert_close(layer(x), wanted)
    layer.mask = full()
    assert not torch.allclose(layer(x)[:, 0], wanted[:, 0])


@pytest.mark.parametrize(("heads", "key_heads"), [(3, None), (0, None), (4, 3), (4, 0)])
def test_heads_that_do_not_divide_are_refused(heads, key_heads):
    with pytest.raises(ShapeError, match=f"8 dims, {heads} heads"):
        SelfAttention(8, heads, key_heads=key_heads)
