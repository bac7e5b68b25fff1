"""flex_attention against torch's own, eager: the functions of its documentation, block masks, captured tensors."""

import pytest

torch = pytest.importorskip("torch")

from torch.nn.attention import flex_attention as flex  # noqa: E402

from clearhead import InputError, TraceError, causal, functions  # noqa: E402
from clearhead.adapters.torch import attention, flex_attention, scaled_dot_product_attention  # noqa: E402
from clearhead.engine.launch_cache import launches  # noqa: E402
from clearhead.rules import scores  # noqa: E402
from clearhead.rules.bounds import ALL_HIDDEN  # noqa: E402

B, H, N, M, D = 2, 4, 37, 45, 8
SLOPES = torch.tensor([0.5, 0.25, 0.1, 0.7], dtype=torch.float64)
TABLE = torch.randn(H, N, M, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
DOCUMENT = torch.arange(50) // 7
PREFIX = torch.tensor([3, 9])
ENDS = torch.tensor([[0, 9], [3, 20], [10, 40], [30, 50]])
ROWS = torch.randn(N, 8, dtype=torch.float64)
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


def rounded_quotients(score, b, h, q, k):
    there, back = torch.div(q - k, 3, rounding_mode="trunc"), torch.div(q - k, 3, rounding_mode="floor")
    return score + 0.1 * there - 0.2 * back.to(score.dtype)


def kinds(score, b, h, q, k):
    near = (q - k).bool().logical_not() | (score - score.double()).type(torch.bool)
    ones = torch.ones_like(score, dtype=torch.int64) + torch.zeros_like(q)
    return score + near.to(torch.int32) * near.long().type_as(score) + ones.to(TABLE) * k.to(q).float() / 50


def chosen(score, b, h, q, k):
    return (q >= k).where(score < 0, False).where(q.ge(3), h == 1).float() + torch.where(q >= k, score, 0).masked_fill(
        (k == 3) | (q % 2 == 1), CAP.item()
    )


def powers(score, b, h, q, k):
    small = score.abs() + 1
    roots = small**0.5 + torch.pow(small, -0.5) + small**-2 + small.pow(-1.0) + small.pow(0) + small.reciprocal()
    return (
        roots
        + torch.exp2(score)
        + 2.0 ** (-0.5 * (h + 1).double())
        + torch.log2(small)
        + CAP**score / 9
        + (q - k).double() ** 2 / 99
    )


def activations(score, b, h, q, k):
    act = torch.nn.functional
    soft = act.softplus(score) + act.softplus(score, beta=3, threshold=2) + torch.log1p(score.abs() / 100)
    return soft + act.silu(score) - act.relu(score) * torch.sign(score - 0.5) + torch.rsqrt(score.square() + 1)


def bounds(score, b, h, q, k):
    low = torch.max(score, CAP / 9).clamp_max(3) - torch.min(score, -0.1 * h).clamp_min(-1) + score.clip(-1, max=CAP)
    return low.add(k, alpha=0.01).sub(score, alpha=2) + torch.rsub(score, 1, alpha=3) + torch.isfinite(score / (q - k))


def bits(score, b, h, q, k):
    odd, even = q.remainder(2).logical_and(k), (k % 2 == 0).bitwise_not().bitwise_xor(q == k)
    return (
        score * odd.logical_xor(even) + torch.bitwise_and(odd, torch.tensor(True)).logical_not() + (even ^ odd & ~even)
    )


def unpacked(score, b, h, q, k):
    low, high = ENDS[k // 15]
    return torch.where((q >= low) & (q < high), score, sum(ENDS[q // 15]) / 50)


def in_place(score, b, h, q, k):
    before = score
    score += 0.01 * q
    score *= 0.5
    return before + 2


def angles(score, b, h, q, k):
    small = score.tanh() * 0.9
    turned = torch.sin(score) + score.cos() * torch.tan(small) + torch.atan2(score, small + 2) + small.asin()
    turned = turned + torch.sinc(score) + torch.sinc(small / 9)
    return turned + torch.acos(small) - torch.arctan(score) + torch.sinh(small) + score.cosh().log1p()


def transcendental(score, b, h, q, k):
    size = score.abs() + 0.1
    grown = torch.expm1(score) + torch.special.exp2(small := score / 4) + size.log2() - torch.log10(size) + small.exp()
    return grown + torch.special.erf(score) * torch.erfc(score) + size**1.7 + 1.3**score + torch.pow(size, score)


def units(score, b, h, q, k):
    act = torch.nn.functional
    return (
        act.gelu(score) + act.gelu(score, approximate="tanh") * act.logsigmoid(score) + score.relu() + act.silu(score)
    )


def rounded(score, b, h, q, k):
    whole = torch.floor(score) + score.ceil() * 2 + score.round() + torch.round(score * 3, decimals=1) - score.trunc()
    return whole + torch.copysign(score, score - 0.5) + torch.isnan(score) + torch.signbit(score) * (score * 2).long()


def remainders(score, b, h, q, k):
    rest = score % 0.7 + torch.fmod(score, 0.7) + torch.remainder(score, score.abs() + 1) + torch.fmod(q - k, 3)
    whole = torch.div(score, 0.3, rounding_mode="floor") + ((q - k) * 0.5) // 0.75
    return rest + 0.1 * whole + torch.div(score, 0.2, rounding_mode="trunc") + (q - k) % 3 + (q - k) // 3


def in_place_methods(score, b, h, q, k):
    same, other = score.to(score.dtype), score.clone()
    score.mul_(2).add_(q - k, alpha=0.1).clamp_(min=-3)
    other.masked_fill_(q > k, 0.5)
    torch.nn.functional.relu(other, inplace=True)
    return same + other.sin()


def see_causal(b, h, q, k):
    return q >= k


def see_window(b, h, q, k):
    return (q >= k) & (q - k <= 5)


def see_nothing_at_first(b, h, q, k):
    return q > k


def see_documents(b, h, q, k):
    return (DOCUMENT[q] == DOCUMENT[k]) & (q >= k)


def see_prefix(b, h, q, k):
    return (k < PREFIX[b]) | (q >= k)


def see_dilated(b, h, q, k):
    return torch.logical_or((q - k) % 3 == 0, torch.logical_and(h > 1, k // 8 == q // 8))


SCORES = [  # those of a line are added up in one rule, for a kernel of many functions costs little more than one of few
    (in_place, softcap, hidden),
    (alibi, biased, chained, methods, capped, activations),
    (rounded_quotients, kinds, chosen),
    (powers,),
    (in_place_methods, bounds, bits, unpacked, remainders),
    (angles, units),
    (transcendental, rounded),
]
MASKS = [see_causal, flex.noop_mask]
MASKS += [flex.and_masks(see_window, see_documents, flex.noop_mask), flex.or_masks(see_prefix, see_dilated)]


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
    d = torch.randn(theirs.shape, dtype=theirs.dtype, generator=torch.Generator().manual_seed(2))
    for a, b in zip(torch.autograd.grad(ours, inputs, d), torch.autograd.grad(theirs, inputs, d), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("scores", SCORES, ids=lambda some: "+".join(f.__name__ for f in some))
def test_scores(scores):
    def score(*place):
        return sum(f(*place) for f in scores)

    inputs = operands()

    def of_a_copy(number, *place):  # torch refuses from 2.15 on that scores themselves are written into
        return score(number.clone(), *place)

    ours = flex_attention(*inputs, score_mod=score)
    torch.testing.assert_close(ours, torchs(*inputs, score_mod=of_a_copy))
    close(ours, defined(*inputs, score_mod=score), inputs)


@pytest.mark.filterwarnings("ignore")
def test_cube_roots_which_torch_has_none_of():
    """First and second derivatives too."""
    inputs = operands()
    rules = (
        lambda root: lambda score, b, h, q, k: root(score * (q - k + 0.5)),
        lambda root: lambda score, b, h, q, k: score + root(score * 3 - 9) * (q - k),
    )
    for rule in rules:
        ours = flex_attention(*inputs, score_mod=rule(functions.cbrt))
        theirs = defined(*inputs, score_mod=rule(lambda x: torch.copysign(x.abs() ** (1 / 3), x)))
        torch.testing.assert_close(ours, theirs)
        own, other = (torch.autograd.grad(y.square().sum(), inputs[0], create_graph=True)[0] for y in (ours, theirs))
        close(own, other, inputs)


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


@pytest.mark.filterwarnings("ignore")
def test_auxiliary_outputs():
    q, k, v = operands(heads=2)
    block_mask = flex.create_block_mask(see_nothing_at_first, B, H, N, M, device="cpu", BLOCK_SIZE=16)
    kwargs = {"score_mod": alibi, "block_mask": block_mask, "enable_gqa": True}
    for asked in (flex.AuxRequest(), flex.AuxRequest(lse=True)):
        ours, theirs = (f(q, k, v, return_aux=asked, **kwargs) for f in (flex_attention, torchs))
        assert isinstance(ours[1], flex.AuxOutput)
        torch.testing.assert_close(ours, theirs)
    _, (none, peaks) = flex_attention(q, k, v, return_aux=flex.AuxRequest(max_scores=True), **kwargs)
    place, key = torch.arange(N)[:, None], torch.arange(M)
    scores = (q @ k.repeat_interleave(2, 1).mT) * D**-0.5 + SLOPES[:, None, None] * (key - place)
    torch.testing.assert_close(peaks, scores.masked_fill(place <= key, -torch.inf).amax(-1).detach())
    assert none is None  # torch's own has no max_scores on processors
    with pytest.raises(InputError, match="exclude each other"):
        flex_attention(q, k, v, enable_gqa=True, return_lse=True, return_aux=flex.AuxRequest())


@pytest.mark.filterwarnings("ignore")
def test_compiled_programs_leave_tracing_alone():
    inputs = operands()
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda q, k, v: flex_attention(q, k, v, score_mod=biased, block_mask=see_window), backend="eager"
    )
    with torch._dynamo.config.patch(error_on_recompile=True):
        ours = compiled(*inputs)
    assert torch.equal(ours, flex_attention(*inputs, score_mod=biased, block_mask=see_window))


def test_a_mask_of_clearhead():
    q, k, v = operands()
    ours = flex_attention(q, k, v, block_mask=causal(align="start"))
    torch.testing.assert_close(ours, torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mod", [lambda s, b, h, q, k: abs(q - k), lambda s, b, h, q, k: q >= k], ids=["int", "bool"])
def test_scores_that_are_no_floats(mod):
    inputs = operands()
    torch.testing.assert_close(flex_attention(*inputs, score_mod=mod), torchs(*inputs, score_mod=mod))


def test_a_detached_tensor_has_no_gradient():
    slopes = SLOPES.clone().requires_grad_()
    inputs = [*operands(), slopes]

    def mod(score, b, h, q, k):
        return score * slopes[h] + (slopes[h] * (q - k)).detach()

    close(flex_attention(*inputs[:3], score_mod=mod), defined(*inputs[:3], score_mod=mod), inputs)


REFUSED = {
    "torch.cumsum cannot be traced: the functions are abs, absolute, acos, add": lambda s, b, h, i, j: torch.cumsum(
        s, 0
    ),
    "whole number": lambda s, b, h, i, j: s + SLOPES[s],
    "one truth": lambda s, b, h, i, j: s if i > j else -s,
    "int8 cannot be traced": lambda s, b, h, i, j: s + i.to(torch.int8),
    "add_ works in place on a captured tensor, and a rule changes none: take": lambda s, b, h, i, j: CAP.add_(s),
    "mul_ cannot make row, which is int, float in place": lambda s, b, h, i, j: i.mul_(s),
    "div_ works in place on a part of a row or a det": lambda s, b, h, i, j: s + ROWS[i][0].div_(s),
    "detach": lambda s, b, h, i, j: s + s.detach(),
    "a row of shape .8,. is no single number": lambda s, b, h, i, j: s + (ROWS[i] * ROWS[j]).sum(),
    "outside, as table = a @ b.T": lambda s, b, h, i, j: s + torch.dot(ROWS[i], ROWS[j]),
    "a tensor of shape .4,. is no single number": lambda s, b, h, i, j: s + SLOPES,
    "no index 8 in an axis of size 8": lambda s, b, h, i, j: s + ROWS[i][8],
    "is a whole number: use a float's power": lambda s, b, h, i, j: s + 2**h,
    "does not fit into 64 bits": lambda s, b, h, i, j: s + i**70,
    "is not a formula of gelu": lambda s, b, h, i, j: torch.nn.functional.gelu(s, approximate="erf"),
    "torch.exp got an unexpected keyword argument 'out'": lambda s, b, h, i, j: torch.exp(s, out=CAP),
    "torch.stack cannot be traced": lambda s, b, h, i, j: torch.stack([s, s]).sum(),
    "only a tensor can be indexed": lambda s, b, h, i, j: s + [1, 2, 3, 4][h],
    "no attribute data": lambda s, b, h, i, j: s.data,
    "torch's functions": lambda s, b, h, i, j: s + float(i),
}


@pytest.mark.parametrize(("message", "mod"), REFUSED.items(), ids=range(len(REFUSED)))
def test_what_cannot_be_traced_tells_its_line(message, mod):
    line = mod.__code__.co_firstlineno
    with pytest.raises(TraceError, match=rf"test_flex\.py, line {line}, `.*lambda s, b, h, i, j.*{message}"):
        flex_attention(*operands(), score_mod=mod)


def test_what_makes_a_rule_is_to_be_called():
    for options in ({"score_mod": scores.softcap}, {"block_mask": causal}):
        with pytest.raises(InputError, match=r"the function is clearhead\.\w+ itself, not what it makes: call it"):
            flex_attention(*operands(), **options)


def test_a_compiled_graph_is_left_for_the_call():
    q, scale = torch.randn(1, 2, 6, 4, requires_grad=True), torch.tensor(0.5, requires_grad=True)

    def loss(q):
        return flex_attention(q.sin(), q, q, lambda s, b, h, i, j: s * scale).cos().sum()

    compiled = torch.compile(loss, backend="aot_eager")
    found = (torch.autograd.grad(f(q), (q, scale)) for f in (compiled, loss))
    torch.testing.assert_close(*found)


def test_blocks_that_a_block_mask_hides_are_not_computed():
    x = torch.randn(1, 2, 512, 8)
    mask = flex.create_block_mask(lambda b, h, q, k: q >= k, None, None, 512, 512, device="cpu")
    launches.clear()
    torch.testing.assert_close(flex_attention(x, x, x, block_mask=mask), attention(x, x, x), rtol=0, atol=0)
    kinds = next(launch.held[1] for launch in launches.values() if launch.held[1] is not None)
    assert (kinds == ALL_HIDDEN).sum() == 12  # 2 tiles each of 3, 2 and 1 blocks


def test_tables_that_change_in_place_are_read_as_they_are():
    x = torch.randn(1, 2, 300, 8)
    mask = torch.ones(300, 300, dtype=torch.bool).tril()
    blocks = flex.create_block_mask(lambda b, h, q, k: q >= k, None, None, 300, 300, device="cpu")
    before = [scaled_dot_product_attention(x, x, x, mask), flex_attention(x, x, x, block_mask=blocks)]
    count = len(launches)
    assert torch.equal(scaled_dot_product_attention(x, x, x, mask), before[0])
    assert len(launches) == count  # prepared once
    mask[:, 100:] = False
    blocks.kv_num_blocks[..., 2] = 1
    after = [scaled_dot_product_attention(x, x, x, mask), flex_attention(x, x, x, block_mask=blocks)]
    assert torch.equal(after[0], scaled_dot_product_attention(x, x, x, mask.clone()))
    for a, b, row in zip(before, after, (100, 256), strict=True):
        assert torch.equal(a[:, :, :row], b[:, :, :row])
        assert not torch.equal(a[:, :, row:], b[:, :, row:])
