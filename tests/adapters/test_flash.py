"""flash-attention's functions against torch's own attention, which aligns causal with the first keys."""

import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from torch.nn.functional import scaled_dot_product_attention as sdpa  # noqa: E402

from clearhead import InputError, ShapeError  # noqa: E402
from clearhead.adapters import torch as clear  # noqa: E402
from clearhead.adapters.torch import (  # noqa: E402
    flash_attn_func,
    flash_attn_kvpacked_func,
    flash_attn_qkvpacked_func,
    flash_attn_varlen_func,
    flash_attn_with_kvcache,
)


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


def test_packed_functions():
    qkv = torch.randn(2, 5, 3, 4, 8, dtype=torch.float64)
    q, k, v = qkv.unbind(2)
    wanted = flash_attn_func(q, k, v, 0.0, 0.3, True)
    assert torch.equal(flash_attn_qkvpacked_func(qkv, 0.0, 0.3, True), wanted)
    assert torch.equal(flash_attn_kvpacked_func(q, qkv[:, :, 1:], 0.0, softmax_scale=0.3, causal=True), wanted)
    with pytest.raises(ShapeError, match=r"\(2, 5, 3, 4, 8\) is not \(batch, length, 2, heads, dim\)"):
        flash_attn_kvpacked_func(q, qkv)
    with pytest.raises(ShapeError, match="stack q, k and v"):
        flash_attn_qkvpacked_func(q)


def test_in_the_place_of_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "flash_attn", clear)
    monkeypatch.setitem(sys.modules, "flash_attn.flash_attn_interface", clear)
    from flash_attn import flash_attn_func as one
    from flash_attn.flash_attn_interface import flash_attn_func as other

    assert one is other is flash_attn_func


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_varlen(causal, each):
    q, k, v = randoms((9, 4, 8), (13, 2, 8), (13, 2, 8))
    starts_q, starts_k = torch.tensor([0, 2, 2, 9]), torch.tensor([0, 4, 5, 13])
    slopes = torch.rand(3, 4, dtype=torch.float64).requires_grad_()
    given = slopes if each else slopes[0]
    ours = flash_attn_varlen_func(q, k, v, starts_q, starts_k, 7, 8, causal=causal, alibi_slopes=given)
    total = 0
    for n in (0, 2):
        a, b = slice(*starts_q[n : n + 2]), slice(*starts_k[n : n + 2])
        own = slopes[n if each else 0]
        alone = defined(q[None, a], k[None, b], v[None, b], right=0 if causal else -1, slopes=own)[0]
        torch.testing.assert_close(ours[a], alone)
        total = total + alone.square().sum()
    theirs = torch.autograd.grad(total, slopes)
    torch.testing.assert_close(torch.autograd.grad(ours.square().sum(), slopes), theirs)


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


def turned(x, cos, sin, first, interleaved, moves):
    """Each pair as a complex number."""
    width = 2 * cos.shape[1]
    at = first[:, None] + torch.arange(x.shape[1]) * moves
    by = torch.complex(cos, sin)[at][:, :, None]
    pairs = x[..., :width].unflatten(-1, (-1, 2) if interleaved else (2, -1))
    pairs = pairs if interleaved else pairs.transpose(-1, -2)
    new = torch.view_as_real(torch.view_as_complex(pairs.contiguous()) * by)
    new = (new if interleaved else new.transpose(-1, -2)).flatten(-2)
    return torch.cat([new, x[..., width:]], -1)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_kvcache_with_rotary_embeddings_and_places(causal, interleaved):
    q, keys, values, k, v = randoms((2, 3, 4, 8), (4, 9, 2, 8), (4, 9, 2, 8), (2, 3, 2, 8), (2, 3, 2, 8))
    angles = torch.arange(9, dtype=torch.float64)[:, None] * torch.tensor([1.0, 0.1, 0.01])
    cos, sin, held, rows = angles.cos(), angles.sin(), torch.tensor([2, 5]), torch.tensor([3, 1])
    before = keys.clone()
    options = (None, None, None, causal, (-1, -1), 0.0, interleaved)
    ours, lse = flash_attn_with_kvcache(q, keys, values, k, v, cos, sin, held, rows, *options, return_softmax_lse=True)
    q, k = turned(q, cos, sin, held, interleaved, causal), turned(k, cos, sin, held, interleaved, True)
    for n, (m, row) in enumerate(zip(held.tolist(), rows.tolist(), strict=True)):
        torch.testing.assert_close(keys[row, m : m + 3], k[n])
        near = keys[row, None, : m + 3], values[row, None, : m + 3]
        torch.testing.assert_close(ours[n : n + 1], defined(q[n : n + 1], *near, right=0 if causal else -1))
    assert torch.equal(keys[[0, 2]], before[[0, 2]])
    assert lse.shape == (2, 4, 3)


def test_kvcache_without_sequences():
    q, cache = torch.zeros(0, 2, 4, 8), torch.zeros(0, 9, 2, 8)
    assert flash_attn_with_kvcache(q, cache, cache, cache_seqlens=3).shape == q.shape
    some = torch.zeros(3, 9, 2, 8)
    none = torch.zeros(0, dtype=torch.int64)
    assert flash_attn_with_kvcache(q, some, some, cache_batch_idx=none).shape == q.shape


def test_kvcache_refuses():
    q, cache = torch.zeros(2, 2, 4, 8), torch.zeros(2, 9, 2, 8)
    new, table = torch.zeros(2, 2, 2, 8), torch.zeros(9, 4)
    for message, given in (
        ("cache_leftpad is not supported", {"cache_leftpad": torch.zeros(2)}),
        ("block_table is not supported", {"block_table": torch.zeros(2)}),
        ("k and v come together", {"k": new}),
        (
            r"k of shape \(2, 2, 1, 8\) does not fit its cache: give \(2, 2, 2, 8\)",
            {"k": new[:, :, :1], "v": new},
        ),
        (r"cache_seqlens of shape \(3,\)", {"cache_seqlens": torch.zeros(3)}),
        ("after .-1, -1. do not fit", {"cache_seqlens": -1}),
        (r"cache_batch_idx \[0, 2\] does not fit", {"cache_batch_idx": torch.tensor([0, 2])}),
        ("rotary_cos and rotary_sin need each other, and k", {"rotary_cos": table, "rotary_sin": table}),
        (r"alibi_slopes of shape \(3,\): give \(4,\), or \(2, 4\)", {"alibi_slopes": torch.zeros(3)}),
        (
            r"rotary tables of shapes \(9, 4\) and \(9, 3\)",
            {"k": new, "v": new, "cache_seqlens": 0, "rotary_cos": table, "rotary_sin": table[:, :3]},
        ),
        (
            r"give \(6 or more, 4 or fewer\)",
            {"k": new, "v": new, "cache_seqlens": 4, "rotary_cos": table[:5], "rotary_sin": table[:5]},
        ),
    ):
        with pytest.raises(InputError, match=message):
            flash_attn_with_kvcache(q, cache, cache.clone(), **given)
    with pytest.raises(ShapeError, match="2 sequences of q and 3 in the caches: select them with cache_batch_idx"):
        flash_attn_with_kvcache(q, *torch.zeros(2, 3, 9, 2, 8))


def test_errors():
    q, k, v = randoms((1, 2, 1, 4), (1, 4, 1, 4), (1, 4, 1, 4))
    with pytest.raises(ShapeError, match="four axes"):
        flash_attn_func(q[0], k, v)
    with pytest.raises(ShapeError, match="three axes"):
        flash_attn_varlen_func(q, k[0], v[0], torch.tensor([0, 2]), torch.tensor([0, 4]), 2, 4)
    with pytest.raises(ShapeError, match=r"\(3,\): give \(1,\), or \(1, 1\)"):
        flash_attn_func(q, k, v, alibi_slopes=torch.ones(3))
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


@pytest.mark.parametrize(
    "options", [{"causal": True}, {"softcap": 5.0, "window_size": (3, 0)}, {"slopes": True}], ids=str
)
def test_compiled_graphs_hold_it_whole(options):
    q, slopes = torch.randn(2, 9, 4, 8, requires_grad=True), torch.linspace(0.1, 0.5, 4).requires_grad_()
    options = dict(options)
    inputs = (q, slopes) if options.pop("slopes", False) else (q,)

    def loss(q, slopes=None):
        return flash_attn_func(q, q, q, alibi_slopes=slopes, **options).pow(2).sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    found = (torch.autograd.grad(f(*inputs), inputs) for f in (compiled, loss))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("slopes", [None, "heads", "each"])
def test_borders_that_leave_something_out(causal, slopes):
    borders, keys, used = [2, 5, 5, 9], [1, 6, 8, 14], [3, 0, 6]
    q, k, v = (x.requires_grad_() for x in randoms((12, 4, 8), (17, 2, 8), (17, 2, 6)))
    table = {None: None, "heads": torch.rand(4).double(), "each": torch.rand(3, 4).double()}[slopes]
    given = {"cu_seqlens_q": torch.tensor(borders), "cu_seqlens_k": torch.tensor(keys), "causal": causal}
    ours = flash_attn_varlen_func(q, k, v, **given, seqused_k=torch.tensor(used), alibi_slopes=table)
    theirs = torch.zeros_like(ours)
    for n in range(3):
        rows, own = slice(borders[n], borders[n + 1]), slice(keys[n], keys[n] + used[n])
        each = None if table is None else table if table.dim() == 1 else table[n : n + 1]
        one = flash_attn_func(q[None, rows], k[None, own], v[None, own], causal=causal, alibi_slopes=each)
        theirs = theirs.index_put((torch.arange(12)[rows],), one[0])
    torch.testing.assert_close(ours, theirs)
    d = torch.randn_like(ours)
    torch.testing.assert_close(*(torch.autograd.grad(x, (q, k, v), d) for x in (ours, theirs)))
    with pytest.raises(ShapeError, match=r"seqused_k \[3, 3, 6\]: sequence 1 has 2 keys, so 3 cannot be used"):
        flash_attn_varlen_func(q, k, v, **given, seqused_k=torch.tensor([3, 3, 6]))
    for wrong in ([0, 5, 3, 9], [0, 1, 2, 13], [-1, 1, 2, 3]):
        with pytest.raises(ShapeError, match="numbers that rise from 0 to at most 12"):
            flash_attn_varlen_func(q, k, v, torch.tensor(wrong), torch.tensor(keys))


def test_packed_sequences_of_packed_operands():
    qkv, borders = randoms((9, 3, 4, 8))[0], torch.tensor([0, 4, 9])
    wanted = flash_attn_varlen_func(*qkv.unbind(1), borders, borders, 5, 5, causal=True)  # type: ignore[call-arg]
    assert torch.equal(clear.flash_attn_varlen_qkvpacked_func(qkv, borders, 5, causal=True), wanted)
    found = clear.flash_attn_varlen_kvpacked_func(qkv[:, 0], qkv[:, 1:], borders, borders, 5, 5, causal=True)
    assert torch.equal(found, wanted)
    with pytest.raises(ShapeError, match="stack q, k and v"):
        clear.flash_attn_varlen_qkvpacked_func(qkv[0], borders)
    with pytest.raises(ShapeError, match="stack k and v"):
        clear.flash_attn_varlen_kvpacked_func(qkv[:, 0], qkv, borders, borders)


IMPORTS = [
    "import flash_attn; assert flash_attn.__version__ >= '2.7'",
    "from flash_attn import flash_attn_func, flash_attn_varlen_qkvpacked_func, flash_attn_varlen_kvpacked_func",
    "from flash_attn import flash_attn_interface; flash_attn_interface.flash_attn_varlen_func",
    "from flash_attn.flash_attn_interface import flash_attn_with_kvcache",
    "from flash_attn.bert_padding import index_first_axis, pad_input, unpad_input, index_put_first_axis",
    "from flash_attn.layers.rotary import apply_rotary_emb, RotaryEmbedding, apply_rotary_emb_func",
]


STAND_IN = """
import os, sys
from clearhead.adapters import torch as clear

names = ["flash_attn", "flash_attn.flash_attn_interface"]
for lines in (1, 2):
    for line in sys.argv[1:]:
        child = os.fork()  # each line is the first to import anything; importing torch takes seconds
        if child == 0:
            sys.modules |= dict.fromkeys(names[:lines], clear)
            exec(line)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            raise SystemExit(f"after {lines} lines: {line}")
"""


def test_what_programs_import():
    subprocess.run([sys.executable, "-c", STAND_IN, *IMPORTS], check=True)


def test_padding_is_cut_out_and_put_back():
    from clearhead.adapters.torch import bert_padding

    x = torch.randn(3, 6, 4, 8, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    packed, indices, borders, longest, used = bert_padding.unpad_input(x, mask)
    assert (borders.tolist(), longest, used.tolist()) == ([0, 4, 7, 13], 6, [4, 3, 6])
    assert borders.dtype is torch.int32
    y = flash_attn_varlen_func(packed, packed, packed, borders, borders, longest, longest, causal=True)
    found = bert_padding.pad_input(y, indices, 3, 6)
    expected = torch.zeros_like(x)
    for n in range(3):
        own = mask[n].nonzero().flatten()
        part = x[n, own][None]
        expected = expected.index_put((torch.tensor(n), own), flash_attn_func(part, part, part, causal=True)[0])
    torch.testing.assert_close(found, expected)
    d = torch.randn_like(found)
    torch.testing.assert_close(*(torch.autograd.grad(y, x, d)[0] for y in (found, expected)))
    unused = torch.zeros_like(mask)
    unused[0, 4] = 1
    packed, _, borders, _, used = bert_padding.unpad_input(x, mask, unused)
    assert (len(packed), borders.tolist(), used.tolist()) == (14, [0, 5, 8, 14], [4, 3, 6])
    lengths = torch.tensor([[2, 3, 0, 0, 0, 0], [3, 2, 0, 0, 0, 0], [6, 0, 0, 0, 0, 0]])
    packed, indices, borders, longest = bert_padding.unpad_input_for_concatenated_sequences(x, lengths)
    assert (borders.tolist(), longest, len(indices)) == ([0, 2, 5, 8, 10, 16], 6, 16)
    assert torch.equal(packed, x.flatten(0, 1)[indices])
    assert torch.equal(bert_padding.index_first_axis_residual(packed, indices[:3])[1], packed)


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotary_embeddings(interleaved):
    from clearhead.adapters.torch.layers import rotary

    x = torch.randn(2, 5, 3, 8, dtype=torch.float64, requires_grad=True)
    angle = torch.rand(9, 3, dtype=torch.float64)
    cos, sin = angle.cos(), angle.sin()

    def turn(x, at):
        """Dim pairs as complex numbers."""
        pairs = x[..., :6].unflatten(-1, (3, 2)) if interleaved else x[..., :6].unflatten(-1, (2, 3)).mT
        z = torch.view_as_complex(pairs.contiguous()) * torch.polar(torch.ones_like(angle), angle)[at][..., None, :]
        back = torch.view_as_real(z)
        return torch.cat([(back if interleaved else back.mT).flatten(-2), x[..., 6:]], -1)

    at = torch.tensor([[0, 1, 2, 3, 4], [4, 5, 6, 7, 8]])
    found = rotary.apply_rotary_emb(x, cos, sin, interleaved, seqlen_offsets=torch.tensor([0, 4]))
    torch.testing.assert_close(found, turn(x, at))
    d = torch.randn_like(found)
    torch.testing.assert_close(*(torch.autograd.grad(y, x, d)[0] for y in (found, turn(x, at))))
    packed = rotary.apply_rotary_emb(x[0], cos, sin, interleaved, cu_seqlens=torch.tensor([0, 2, 5]), seqlen_offsets=1)
    torch.testing.assert_close(packed, turn(x[0], torch.tensor([1, 2, 1, 2, 3])))
    half = rotary.apply_rotary_emb_torch(x, cos[:5], sin[:5], interleaved)
    torch.testing.assert_close(half, turn(x, torch.arange(5)))
    y = x.detach().clone()
    assert rotary.apply_rotary_emb(y, cos, sin, interleaved, inplace=True) is y
    torch.testing.assert_close(y, turn(x, torch.arange(5)).detach())
    pair = torch.cat([-x[..., 4:], x[..., :4]], -1)
    torch.testing.assert_close(rotary.rotate_half(x), pair)
    with pytest.raises(ShapeError, match=r"rotary tables of shapes \(9, 3\) and \(9, 3\): give \(13 or more, 4 or"):
        rotary.apply_rotary_emb(x, cos, sin, seqlen_offsets=8)
    with pytest.raises(ShapeError, match="give cu_seqlens too"):
        rotary.apply_rotary_emb(x[0], cos, sin)


@pytest.mark.parametrize("scale_base", [None, 512])
def test_the_rotary_layer(scale_base):
    from clearhead.adapters.torch.layers.rotary import RotaryEmbedding, apply_rotary_emb

    layer = RotaryEmbedding(6, base=100.0, scale_base=scale_base)
    q, k, v = (x.float() for x in randoms((2, 5, 3, 8), (2, 5, 3, 8), (2, 5, 3, 8)))
    place, pair = torch.arange(7.0)[:, None], torch.arange(3.0)
    angle = place * 100.0 ** (-pair / 3)
    size = 1.0 if scale_base is None else ((2 * pair + 2.4) / 8.4) ** ((place - 3) / scale_base)
    want = [
        apply_rotary_emb(x, angle.cos() * s, angle.sin() * s, seqlen_offsets=2) for x, s in ((q, size), (k, 1 / size))
    ]
    found = layer(torch.stack([q, k, v], 2), seqlen_offset=2)
    torch.testing.assert_close(found, torch.stack([*want, v], 2))
    flat = layer(torch.cat([q, k[:, :, :1], v[:, :, :1]], 2), seqlen_offset=2, num_heads_q=3)
    torch.testing.assert_close(flat, torch.cat([want[0], want[1][:, :, :1], v[:, :, :1]], 2))
    own, pairs = layer(q.clone(), torch.stack([k, v], 2), seqlen_offset=torch.tensor([2, 2]), max_seqlen=7)
    torch.testing.assert_close(own, want[0])
    torch.testing.assert_close(pairs, torch.stack([want[1], v], 2))
    with pytest.raises(InputError, match="give num_heads_q"):
        layer(flat)
