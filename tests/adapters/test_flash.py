"""flash-attention's functions against torch's own attention, which aligns causal with the first keys."""

import pytest

torch = pytest.importorskip("torch")

from torch.nn.functional import scaled_dot_product_attention as sdpa  # noqa: E402

from clearhead import InputError, ShapeError  # noqa: E402
from clearhead.adapters.torch import flash_attn_func, flash_attn_varlen_func, flash_attn_with_kvcache  # noqa: E402


def randoms(*shapes):
    make = torch.Generator().manual_seed(0)
    return [torch.randn(s, generator=make, dtype=torch.float64) for s in shapes]


def defined(q, k, v, left=-1, right=-1, slopes=None, softcap=0.0):
    """By a dense bias."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    n, m = q.shape[-2], k.shape[-2]
    place, key = torch.arange(n)[:, None] + m - n, torch.arange(m)
    hide = torch.zeros(n, m, dtype=torch.bool)
    if left >= 0:
        hide |= key < place - left
    if right >= 0:
        hide |= key > place + right
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    if slopes is not None:
        scores = scores - slopes[..., None, None] * (place - key).abs()
    scores = scores.masked_fill(hide, -torch.inf)
    return (torch.softmax(scores, -1).nan_to_num() @ v).transpose(1, 2)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [(-1, -1), (3, 2)])
def test_func(causal, window):
    q, k, v = randoms((2, 5, 4, 8), (2, 9, 2, 8), (2, 9, 2, 8))
    slopes = torch.rand(2, 4, dtype=torch.float64)
    inputs = [x.requires_grad_() for x in (q, k, v, slopes)]
    ours = flash_attn_func(q, k, v, causal=causal, window_size=window, softcap=3.0, alibi_slopes=slopes)
    theirs = defined(q, k, v, window[0], 0 if causal else window[1], slopes, 3.0)
    torch.testing.assert_close(ours, theirs)
    d = torch.randn_like(ours)
    for a, b in zip(torch.autograd.grad(ours, inputs, d), torch.autograd.grad(theirs, inputs, d), strict=True):
        torch.testing.assert_close(a, b)


def test_more_queries_than_keys_see_nothing():
    q, k, v = randoms((1, 5, 1, 4), (1, 2, 1, 4), (1, 2, 1, 4))
    output, lse, none = flash_attn_func(q, k, v, causal=True, return_attn_probs=True)
    assert (output[:, :3] == 0).all()
    assert torch.isneginf(lse[..., :3]).all()
    assert none is None


@pytest.mark.parametrize("causal", [False, True])
def test_varlen(causal):
    q, k, v = randoms((9, 4, 8), (13, 2, 8), (13, 2, 8))
    starts_q, starts_k = torch.tensor([0, 2, 2, 9]), torch.tensor([0, 4, 5, 13])
    slopes = torch.rand(4, dtype=torch.float64)
    ours = flash_attn_varlen_func(q, k, v, starts_q, starts_k, 7, 8, causal=causal, alibi_slopes=slopes)
    for n in (0, 2):
        a, b = slice(*starts_q[n : n + 2]), slice(*starts_k[n : n + 2])
        alone = defined(q[None, a], k[None, b], v[None, b], right=0 if causal else -1, slopes=slopes)[0]
        torch.testing.assert_close(ours[a], alone)


@pytest.mark.parametrize("held", [[3, 3], [3, 6]])
def test_kvcache(held):
    q, keys, values, k, v = randoms((2, 2, 4, 8), (2, 9, 2, 8), (2, 9, 2, 8), (2, 2, 2, 8), (2, 2, 2, 8))
    before = keys.clone()
    lengths = torch.tensor(held, dtype=torch.int32)
    ours = flash_attn_with_kvcache(q, keys, values, k, v, cache_seqlens=lengths, causal=True)
    for n, m in enumerate(held):
        assert torch.equal(keys[n, m : m + 2], k[n])
        assert torch.equal(keys[n, :m], before[n, :m])
        wanted = defined(q[n : n + 1], keys[n : n + 1, : m + 2], values[n : n + 1, : m + 2], right=0)
        torch.testing.assert_close(ours[n : n + 1], wanted)


def test_errors():
    q, k, v = randoms((1, 2, 1, 4), (1, 4, 1, 4), (1, 4, 1, 4))
    with pytest.raises(ShapeError, match="four axes"):
        flash_attn_func(q[0], k, v)
    with pytest.raises(ShapeError, match="do not fit"):
        flash_attn_with_kvcache(q, k, v, q, q, cache_seqlens=3)
    with pytest.raises(InputError, match="KeyValueCache"):
        flash_attn_varlen_func(q[0], k[0], v[0], None, None, 1, 1, block_table=torch.zeros(1))


def test_dropout_keeps_the_mean():
    torch.manual_seed(0)
    q, k, v = randoms((1, 64, 4, 8), (1, 64, 4, 8), (1, 64, 4, 8))
    mean = torch.stack([flash_attn_func(q, k, v, dropout_p=0.3) for _ in range(300)]).mean(0)
    wanted = sdpa(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)
    assert (mean - wanted).abs().max() < 0.15
