"""flex_attention against torch's own, eager: the functions of its documentation, block masks, captured tensors."""

import pytest

torch = pytest.importorskip("torch")

from torch.nn.attention import flex_attention as flex  # noqa: E402

from clearhead import TraceError, causal  # noqa: E402
from clearhead.adapters.torch import flex_attention  # noqa: E402

B, H, N, M, D = 2, 4, 37, 45, 8
SLOPES = torch.tensor([0.5, 0.25, 0.1, 0.7], dtype=torch.float64)
TABLE = torch.randn(H, N, M, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
DOCUMENT = torch.arange(50) // 7
PREFIX = torch.tensor([3, 9])
CAP = torch.tensor(5.0, dtype=torch.float64)


def softcap(score, b, h, q, k):
    return 20 * torch.tanh(score / 20)


def alibi(score, b, h, q, k):
    return score + SLOPES[h] * (k - q)


def biased(score, b, h, q, k):
    return score + TABLE[h, q, k]


def chained(score, b, h, q, k):
    return score + TABLE[h][q][k]


def hidden(score, b, h, q, k):
    return torch.where(q >= k, score, -float("inf"))


def methods(score, b, h, q, k):
    distance = (q - k).abs().double()
    return torch.sigmoid(score) * CAP - distance.clamp(max=4).square() / 7 + (1 - distance) ** 2 * 0.01


def capped(score, b, h, q, k):
    return CAP * (score / CAP).tanh() + torch.maximum(score, torch.zeros_like(score))


def see_causal(b, h, q, k):
    return q >= k


def see_window(b, h, q, k):
    return (q >= k) & (q - k <= 5)


def see_documents(b, h, q, k):
    return (DOCUMENT[q] == DOCUMENT[k]) & (q >= k)


def see_prefix(b, h, q, k):
    return (k < PREFIX[b]) | (q >= k)


def see_dilated(b, h, q, k):
    return torch.logical_or((q - k) % 3 == 0, torch.logical_and(h > 1, k // 8 == q // 8))


SCORES = [softcap, alibi, biased, chained, hidden, methods, capped]
MASKS = [see_causal, see_window, see_documents, see_prefix, see_dilated, flex.noop_mask]


def operands(heads=H, dtype=torch.float64):
    make = torch.Generator().manual_seed(0)
    shapes = (B, H, N, D), (B, heads, M, D), (B, heads, M, D + 3)
    return [torch.randn(s, generator=make, dtype=dtype).requires_grad_() for s in shapes]


def defined(query, key, value, score_mod=None, mask_mod=None, scale=D**-0.5, enable_gqa=False):
    """The definition, with torch's own way to call functions for each pair; torch's flex has no gradients here."""
    key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
    scores = query @ key.transpose(-1, -2) * scale
    places = [torch.arange(n) for n in scores.shape]
    dims = [(0, None, None, None), (None, 0, None, None), (None, None, 0, None), (None, None, None, 0)][::-1]

    def each(mod, first):
        for dim in dims:
            mod = torch.vmap(mod, in_dims=(*first, *dim))
        return mod

    if score_mod is not None:
        scores = each(score_mod, (0,))(scores, *places)
    if mask_mod is not None:
        scores = torch.where(each(mask_mod, ())(*places), scores, -torch.inf)
    weights = torch.exp(scores - torch.logsumexp(scores, -1, keepdim=True))
    return torch.where(torch.isneginf(scores).all(-1, keepdim=True), 0, weights) @ value


def torchs(*args, **kwargs):
    return flex.flex_attention(*(x.detach() for x in args), **kwargs)


def close(ours, theirs, inputs):
    torch.testing.assert_close(ours, theirs)
    d = torch.randn_like(theirs)
    for a, b in zip(torch.autograd.grad(ours, inputs, d), torch.autograd.grad(theirs, inputs, d), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("score", SCORES, ids=lambda f: f.__name__)
def test_scores(score):
    inputs = operands()
    ours = flex_attention(*inputs, score_mod=score)
    torch.testing.assert_close(ours, torchs(*inputs, score_mod=score))
    close(ours, defined(*inputs, score_mod=score), inputs)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mask", MASKS, ids=lambda f: f.__name__)
def test_masks(mask):
    inputs = operands()
    block_mask = flex.create_block_mask(mask, B, H, N, M, device="cpu", BLOCK_SIZE=16)
    ours = flex_attention(*inputs, block_mask=block_mask, score_mod=softcap)
    torch.testing.assert_close(ours, torchs(*inputs, block_mask=block_mask, score_mod=softcap))
    close(ours, defined(*inputs, score_mod=softcap, mask_mod=mask), inputs)
    assert torch.equal(ours, flex_attention(*inputs, block_mask=mask, score_mod=softcap))


@pytest.mark.filterwarnings("ignore")
def test_blocks_without_a_function():
    counts = torch.tensor([1, 2, 1], dtype=torch.int32).reshape(1, 1, 3)
    indices = torch.tensor([[0, 1, 2], [1, 0, 2], [2, 0, 1]], dtype=torch.int32).reshape(1, 1, 3, 3)
    block_mask = flex.BlockMask.from_kv_blocks(counts, indices, BLOCK_SIZE=16, seq_lengths=(N, M))
    q, k, v = (x.detach() for x in operands())
    seen = torch.zeros(3, 3, dtype=torch.bool)
    seen[0, 0] = seen[1, 1] = seen[1, 0] = seen[2, 2] = True
    table = seen.repeat_interleave(16, 0).repeat_interleave(16, 1)[:N, :M]
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=table)
    torch.testing.assert_close(flex_attention(q, k, v, block_mask=block_mask), wanted)


@pytest.mark.filterwarnings("ignore")
def test_captured_tensors_have_gradients():
    slopes, cap = SLOPES.clone().requires_grad_(), CAP.clone().requires_grad_()

    def mod(score, b, h, q, k):
        return cap * torch.tanh(score / cap) + slopes[h] * (k - q)

    inputs = [*operands(), slopes, cap]
    close(flex_attention(*inputs[:3], score_mod=mod), defined(*inputs[:3], score_mod=mod), inputs)
    doubled = slopes * 2
    ours = flex_attention(*inputs[:3], score_mod=lambda s, b, h, q, k: s + doubled[h] * (k - q))
    assert torch.autograd.grad(ours.sum(), slopes)[0].abs().max() > 0


@pytest.mark.filterwarnings("ignore")
def test_grouped_heads_scale_and_lse():
    inputs = operands(heads=2)
    kwargs = {"score_mod": alibi, "enable_gqa": True, "scale": 0.3, "return_lse": True}
    ours, lse = flex_attention(*inputs, **kwargs)
    theirs, their_lse = torchs(*inputs, **kwargs)
    torch.testing.assert_close((ours, lse), (theirs, their_lse))
    close(ours, defined(*inputs, score_mod=alibi, scale=0.3), inputs)


def test_a_mask_of_clearhead():
    q, k, v = operands()
    ours = flex_attention(q, k, v, block_mask=causal(align="start"))
    torch.testing.assert_close(ours, torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True))


def test_what_cannot_be_traced():
    q, k, v = operands()
    with pytest.raises(TraceError, match=r"torch\.cumsum cannot be traced"):
        flex_attention(q, k, v, score_mod=lambda s, b, h, i, j: torch.cumsum(s, 0))
    with pytest.raises(TraceError, match="whole number"):
        flex_attention(q, k, v, score_mod=lambda s, b, h, i, j: s + SLOPES[s])
    with pytest.raises(TraceError, match="one truth"):
        flex_attention(q, k, v, score_mod=lambda s, b, h, i, j: s if i > j else -s)
