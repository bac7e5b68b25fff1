"""Interventions in encoders, in cross-attention, and in models that are not transformers'."""

import tracemalloc

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

import clearhead  # noqa: E402
from clearhead.errors import InputError  # noqa: E402
from tests.edited_by_matrix import MatrixEdit, attention, by_matrix  # noqa: E402
from tests.tiny_models import model_of, run_flex_as_it_is  # noqa: E402

SMALL = {"vocab_size": 50, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def close(ours, theirs, tolerance=1e-5):
    assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


def sharpened(model):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(word in name for word in ("query", "key.", "q_proj", "k_proj", ".q.", ".k.")):
                parameter.mul_(6)
    return model.eval()


@torch.no_grad()
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_an_encoder(attention):
    torch.manual_seed(0)
    config = transformers.BertConfig(
        **SMALL, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64
    )
    model = sharpened(transformers.BertModel(config))
    for number, layer in enumerate(model.encoder.layer):
        layer.attention.self.layer_idx = number
    model.set_attn_implementation(attention)
    ids, mask = torch.randint(3, 50, (2, 9)), torch.ones(2, 9, dtype=torch.long)
    mask[1, 6:] = 0
    edits = [
        MatrixEdit("cut", 1, [0, 2], lambda q, k, n: (k == 0) & (q >= 3)),
        MatrixEdit("scale", 0, [1], lambda q, k, n: (q - k).abs() > 1, 0.5),
        MatrixEdit("output", 1, [3], number="mean"),
    ]
    edits[2].pairs = lambda q, k, n: (q >= 0) & (k >= 0)
    theirs = by_matrix(model, edits, lambda: model(ids[:1], attention_mask=mask[:1]).last_hidden_state)
    with clearhead.intervene(model) as change:
        change.cut(1, [0, 2], queries=slice(3, None), keys=0)
        change.scale(0, [1], 0.5, where=lambda query, key: abs(query - key) > 1)
        change.ablate(1, [3], to="mean")
        ours = model(ids, attention_mask=mask).last_hidden_state
        alone = model(ids[1:, :6]).last_hidden_state
    close(ours[:1], theirs)
    close(ours[1:, :6], alone)


@torch.no_grad()
@pytest.mark.parametrize("family", ["bart", "t5"])
def test_cross_attention(family):
    torch.manual_seed(0)
    if family == "bart":
        config = transformers.BartConfig(
            **SMALL, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
            decoder_attention_heads=4, encoder_ffn_dim=32, decoder_ffn_dim=32, decoder_start_token_id=1, init_std=0.3,
        )  # fmt: skip
        model = transformers.BartForConditionalGeneration(config)
    else:
        config = transformers.T5Config(
            **SMALL, d_model=32, d_kv=8, d_ff=32, num_layers=2, num_decoder_layers=2, num_heads=4,
            decoder_start_token_id=1,
        )  # fmt: skip
        model = transformers.T5ForConditionalGeneration(config)
    model = sharpened(model)
    model.set_attn_implementation("eager")
    ids = torch.randint(3, 50, (2, 7))
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "return_dict_in_generate": True}

    def text():
        done = model.generate(ids, output_scores=True, **options)
        scores = torch.stack(done.scores)
        return done.sequences, torch.where(scores.isfinite(), scores, 0)

    edits = [
        MatrixEdit("cut", 1, [0, 3], lambda q, k, n: (k < 3) & (q >= 0)),
        MatrixEdit("scale", 0, [1, 2], lambda q, k, n: (k == 6) & (q >= 0), 2.0),
    ]
    plain = text()
    sequences, scores = by_matrix(model, edits, text, crosses=True)
    with clearhead.intervene(model) as change:
        change.cut(1, [0, 3], keys=slice(0, 3), part="cross")
        change.scale(0, [1, 2], 2.0, keys=[-1], part="cross")
        ours = text()
    assert torch.equal(ours[0], sequences)
    close(ours[1], scores)
    assert (scores - plain[1]).abs().max() > 1e-3 * scores.abs().max()
    with clearhead.intervene(model) as change:
        change.ablate(0, [2], queries=[3, 4], part="cross")
        change.ablate(0, [2], queries=[3], part="decoder")
        text()


class Plain(nn.Module):
    """Attention by torch's function, without any library."""

    def __init__(self, dim=32, heads=4):
        super().__init__()
        self.heads, self.parts, self.output = heads, nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def operands(self, x):
        return (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.parts(x).chunk(3, -1))

    def forward(self, x, mask=None):
        q, k, v = self.operands(x)
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        return self.output(out.transpose(1, 2).flatten(2))


def by_hand(model, x, edits, added):
    q, k, v = model.operands(x)
    out, _ = attention(q, k, v, added, q.shape[-1] ** -0.5, edits)
    return model.output(out.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("kind", ["causal", "booleans", "numbers"])
def test_a_module_of_ones_own(kind):
    torch.manual_seed(0)
    model, x = Plain(), torch.randn(2, 10, 32)
    seen = torch.rand(2, 1, 10, 10) > 0.4
    seen |= torch.eye(10, dtype=torch.bool)
    causal = torch.ones(10, 10, dtype=torch.bool).tril()
    numbers = torch.randn(4, 10, 10, requires_grad=True)
    given = {"causal": None, "booleans": seen, "numbers": numbers}[kind]
    added = {
        "causal": torch.zeros(10, 10).masked_fill(~causal, torch.finfo(torch.float32).min),
        "booleans": torch.zeros(2, 1, 10, 10).masked_fill(~seen, torch.finfo(torch.float32).min),
        "numbers": numbers,
    }[kind]
    edits = [
        MatrixEdit("cut", 0, [1], lambda q, k, n: k == 2),
        MatrixEdit("scale", 0, [0, 3], lambda q, k, n: (k == 9) & (q >= 5), 0.1),
    ]
    theirs = by_hand(model, x, edits, added)
    with clearhead.intervene(model) as change:
        change.cut(0, [1], keys=2, queries=slice(3, None) if kind == "causal" else None)
        change.scale(0, [0, 3], 0.1, keys=-1, queries=slice(5, None))
        ours = model(x, given)
    close(ours[:, 3:], theirs[:, 3:])
    wanted = [model.parts.weight, *([numbers] if kind == "numbers" else [])]
    expected = torch.autograd.grad(theirs[:, 3:].square().sum(), wanted)
    for own, other in zip(torch.autograd.grad(ours[:, 3:].square().sum(), wanted), expected, strict=True):
        close(own, other)


class Flexible(Plain):
    """Attention by flex_attention, with a score function of heads and a block mask."""

    slopes = torch.tensor([0.1, 0.2, 0.3, 0.4])

    def forward(self, x, mask=None):
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        n = x.shape[1]
        blocks = create_block_mask(lambda b, h, q, k: (q >= k) & (q - k < 5), None, None, n, n, device="cpu")
        q, k, v = self.operands(x)
        out = flex_attention(q, k, v, score_mod=lambda s, b, h, q, k: s - self.slopes[h] * (q - k), block_mask=blocks)
        return self.output(out.transpose(1, 2).flatten(2))


@pytest.mark.filterwarnings("ignore")
@torch.no_grad()
def test_flex_attention():
    torch.manual_seed(0)
    model, x = Flexible(), torch.randn(2, 10, 32)
    distance = torch.arange(10)[:, None] - torch.arange(10)
    added = -model.slopes[:, None, None] * distance
    added = added.masked_fill((distance < 0) | (distance >= 5), torch.finfo(torch.float32).min)
    edits = [
        MatrixEdit("cut", 0, [2], lambda q, k, n: q - k == 1),
        MatrixEdit("scale", 0, [1, 3], lambda q, k, n: k == 4, 2.0),
    ]
    with clearhead.intervene(model) as change:
        change.cut(0, [2], where=lambda query, key: query - key == 1)
        change.scale(0, [1, 3], 2.0, keys=4)
        ours = model(x)
    close(ours, by_hand(model, x, edits, added))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("attention", ["clearhead", "flex_attention", "sdpa"])
@torch.no_grad()
def test_rules_stay_rules(llama, attention, monkeypatch):
    """Only what a model makes as a table is read as one: with padding, torch's own function needs it."""
    import clearhead.adapters.transformers  # noqa: F401
    from clearhead.adapters.torch.call_rules import rules_of
    from clearhead.observing import observing

    sizes = []

    class Reader:
        def wants(self, module):
            return True

        def answer(self, call, compute):
            _, tables = rules_of(call, [1, 2]).named()
            sizes.append(max((table.numel() for table in tables), default=0))
            return compute()

    run_flex_as_it_is(monkeypatch)
    mask = torch.ones(2, 100, dtype=torch.long)
    mask[0, :9] = 0
    llama.set_attn_implementation(attention)
    with observing(llama, Reader()):
        llama(torch.full((2, 100), 5), attention_mask=mask)
    llama.set_attn_implementation("eager")
    assert len(sizes) == 2
    assert max(sizes) == {"clearhead": 200, "flex_attention": 200, "sdpa": 20000}[attention]


@pytest.mark.parametrize("evaluated", [False, True])
def test_torchs_attention_layers(evaluated):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).train(not evaluated)
    x = torch.randn(2, 8, 32)
    own = model.layers[1].self_attn

    def hooked(module, args, kwargs, output):
        q, k, v = functional.linear(args[0], own.in_proj_weight, own.in_proj_bias).chunk(3, -1)
        parts = (part.unflatten(-1, (4, -1)).transpose(1, 2) for part in (q, k, v))
        out, _ = attention(*parts, None, 8**-0.5, [MatrixEdit("cut", 1, [2], lambda q, k, n: k == 1)])
        return own.out_proj(out.transpose(1, 2).flatten(2)), None

    with torch.set_grad_enabled(not evaluated):
        with clearhead.intervene(model) as change:
            change.cut(1, [2], keys=1)
            ours = model(x)
        handle = own.register_forward_hook(hooked, with_kwargs=True)
        model.train()
        theirs = model(x)
        handle.remove()
    close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_16_bits_stay_16_bits(dtype):
    torch.manual_seed(0)
    model, x = Plain().to(dtype), torch.randn(2, 10, 32).to(dtype)
    with clearhead.intervene(model) as change:
        change.scale(0, [1], 0.5)
        ours = model(x)
    assert ours.dtype is dtype
    wide = model.float()
    with clearhead.intervene(wide) as change:
        change.scale(0, [1], 0.5)
        close(ours.float(), wide(x.float()), 0.02)


@torch.no_grad()
def test_64_bits():
    torch.manual_seed(0)
    model, x = Plain().double(), torch.randn(2, 10, 32, dtype=torch.float64)
    added = torch.zeros(10, 10).masked_fill(torch.ones(10, 10).tril() == 0, torch.finfo(torch.float32).min)
    edits = [
        MatrixEdit("scale", 0, [1], lambda q, k, n: k == 2, 0.3),
        MatrixEdit("scale, renormalized", 0, [2], lambda q, k, n: k == 0, torch.tensor(0.7, dtype=torch.float64)),
        MatrixEdit("sink", 0, [0], number=1.3),
    ]
    with clearhead.intervene(model) as change:
        change.scale(0, 1, 0.3, keys=2)
        change.scale(0, 2, 0.7, keys=0, renormalize=True)
        change.sink(0, 0, 1.3)
        close(model(x), by_hand(model, x, edits, added.double()), 1e-13)


@torch.no_grad()
def test_memory_does_not_grow_with_the_square():
    """At 8192 items a matrix of one head in float32 takes 256 MiB, one of booleans 64 MiB."""
    torch.manual_seed(0)
    model, n = Plain(dim=16, heads=1), 8192
    x = torch.randn(1, n, 16)
    model(x)

    def edits(change):
        change.cut(0, [0], queries=slice(100, None), keys=slice(0, 10))
        change.scale(0, [0], 0.5, keys=slice(None, None, 7), where=lambda query, key: query - key > 3)

    with clearhead.intervene(model) as change:  # compiles
        edits(change)
        model(x[:, :300])
    before = peak_memory()
    tracemalloc.start()
    with clearhead.intervene(model) as change:
        edits(change)
        model(x)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20
    assert peak_memory() - before < 40 << 20


def peak_memory():
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# Errors


@pytest.fixture(scope="module")
def llama():
    return model_of("llama")


IDS = torch.arange(3, 15)[None]
WRONG = {
    "no layer 9: choose from 0 to 1, or -1 for the last of them": lambda c: c.ablate(9),
    "no layer -3: choose from 0 to 1, or -1 for the last of them": lambda c: c.ablate([0, -3]),
    "no part 'vision': choose from 'decoder'": lambda c: c.ablate(0, part="vision"),
    "no head 4: choose from 0 to 3, or -1 for the last": lambda c: c.ablate(0, [4]),
    "no head -5: choose from 0 to 3, or -1 for the last": lambda c: c.ablate(0, [1, -5]),
    "heads='all' is not a number": lambda c: c.ablate(0, "all"),
    "queries=1.5 are not positions": lambda c: c.cut(0, queries=1.5),
    "factor=-1 has negative": lambda c: c.scale(0, [1], -1),
    "factors for 3 heads, but changes 2": lambda c: c.scale(0, [1, 2], [1, 2, 3]),
    "factors for 5 keys, but one stands at position 11": lambda c: c.scale(0, [1], np.ones((1, 1, 5))),
    "where=3 does not choose pairs": lambda c: c.cut(0, where=3),
    "where is clearhead.causal itself, not what it makes": lambda c: c.cut(0, where=clearhead.causal),
    "value=inf is not finite": lambda c: c.sink(0, [1], np.inf),
    "to='median' is not an output": lambda c: c.ablate(0, to="median"),
    "gives numbers for 5 dims, but needs 16": lambda c: c.ablate(0, [1], to=np.zeros(5)),
    "gives numbers for 3 queries, but changes one at position 11": lambda c: c.ablate(0, [1], to=np.zeros((1, 3, 16))),
    "has no sequence 1: choose from 0 to 0": lambda c: c.ablate(0, sequence=1),
    "sequence=-1 is not a number in the batch": lambda c: c.ablate(0, sequence=-1),
    "holds no weights": lambda c: c.patch(0, [1], np.ones((3, 3))),
    "changes nothing": lambda c: c.patch(0, [1], clearhead.weights(np.eye(3), np.eye(3)), pattern=False),
    "the weights of 3 queries over 3 keys, but a pass has 12": lambda c: c.patch(
        0, [1], clearhead.weights(np.eye(3), np.eye(3))
    ),
    "gives weights alone": lambda c: c.patch(0, [1], clearhead.weights(np.eye(12), np.eye(12)), values=True),
    "never met position 50": lambda c: c.cut(0, keys=[0, 50]),
    "never met any of queries=slice(20, None)": lambda c: c.ablate(0, queries=slice(20, None)),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_arguments_name_what_is_possible(llama, message):
    with pytest.raises(InputError) as error:
        called(llama, WRONG[message], IDS)
    assert message in str(error.value)


NEGATIVE = [  # an edit as written, and with the numbers that it means of 2 layers of 4 heads
    (lambda c: c.ablate(-1, 0), lambda c: c.ablate(1, 0)),
    (lambda c: c.ablate([-2, 1, -1], [-1, 0, 3]), lambda c: c.ablate(None, [3, 0])),
    (lambda c: c.cut(-1, -4, keys=0), lambda c: c.cut(1, 0, keys=0)),
    (lambda c: c.scale(-2, [0, -1], [2, 3]), lambda c: c.scale(0, [0, 3], [2, 3])),
    (lambda c: c.sink(0, -1, 1.0), lambda c: c.sink(0, 3, 1.0)),
    (lambda c: c.uniform(1, [-2]), lambda c: c.uniform(1, [2])),
]


@pytest.mark.parametrize(("edit", "meant"), NEGATIVE)
@torch.no_grad()
def test_negative_layers_and_heads_count_from_the_last(llama, edit, meant):
    results = []
    for one in (edit, meant):
        with clearhead.watch(llama) as seen, clearhead.intervene(llama) as change:
            one(change)
            logits = llama(IDS).logits
        results.append((logits, np.asarray(seen.layer(-1).head(-1).weights)))
    assert torch.equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])
    np.testing.assert_array_equal(results[0][1], np.asarray(seen.layer(1).head(3).weights))
    assert not torch.equal(results[0][0], llama(IDS).logits)


def called(model, edit, x):
    with clearhead.intervene(model) as change:
        edit(change)
        model(x)


def test_an_edit_that_nothing_reached_is_an_error(llama):
    with (
        pytest.raises(InputError, match=r"ablate\(layer=0, .*\) was never reached"),
        clearhead.intervene(llama) as change,
    ):
        change.ablate(0)


class Dropping(Plain):
    def forward(self, x, mask=None):
        return functional.scaled_dot_product_attention(*self.operands(x), dropout_p=0.1)


def test_dropout_is_refused():
    with pytest.raises(InputError, match=r"drops attention weights \(dropout=0.1\)"):
        called(Dropping(), lambda change: change.ablate(0, [1]), torch.randn(1, 4, 32))


@torch.no_grad()
def test_patched_queries_of_any_mask():
    """Weights that are not causal, for single queries in the middle."""
    torch.manual_seed(0)
    model, x = Plain(), torch.randn(1, 10, 32)
    q, k = np.random.default_rng(0).standard_normal((2, 10, 8)).astype(np.float32)
    w = clearhead.weights(q, k, mask=clearhead.full(), score=clearhead.alibi(1))
    edit = MatrixEdit("weights", 0, [2], lambda q, k, n: (q == 3) | (q == 7), torch.from_numpy(np.asarray(w)))
    with clearhead.intervene(model) as change:
        change.patch(0, [2], w, queries=[3, 7])
        ours = model(x)
    added = torch.zeros(10, 10).masked_fill(torch.ones(10, 10).tril() == 0, torch.finfo(torch.float32).min)
    close(ours, by_hand(model, x, [edit], added))


class Held(nn.Module):
    """Calls attention by a function that it was given."""

    def __init__(self):
        super().__init__()
        self.attend = functional.scaled_dot_product_attention

    def forward(self, x):
        return self.attend(x, x, x)


@pytest.mark.parametrize("enter", [clearhead.intervene, clearhead.output_gradients])
def test_layers_known_only_as_they_run_are_refused(enter):
    with pytest.raises(InputError, match="known only as they run"):
        enter(nn.Sequential(Held())).__enter__()
