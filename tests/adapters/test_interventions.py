"""Interventions give what a model gives whose matrix of weights is edited by hand."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import clearhead  # noqa: E402
from tests.edited_by_matrix import MatrixEdit, by_matrix  # noqa: E402
from tests.tiny_models import model_of, run_flex_as_it_is  # noqa: E402

FACTORS = np.linspace(0.1, 2, 40)
CASES = {
    "some keys": (
        lambda c: c.cut(1, [0, 2], queries=slice(2, None), keys=[0, 1]),
        [MatrixEdit("cut", 1, [0, 2], lambda q, k, n: (q >= 2) & ((k == 0) | (k == 1)))],
    ),
    "function": (
        lambda c: c.cut(0, where=lambda query, key: query - key > 4),
        [MatrixEdit("cut", 0, [0, 1, 2, 3], lambda q, k, n: q - k > 4)],
    ),
    "mask": (
        lambda c: c.cut(0, [1], where=~clearhead.window(2)),
        [MatrixEdit("cut", 0, [1], lambda q, k, n: q - k > 2)],
    ),
    "last query": (
        lambda c: c.cut(1, [1], queries=[-1], keys=slice(0, 3)),
        [MatrixEdit("cut", 1, [1], lambda q, k, n: (q == n - 1) & (k >= 0) & (k < 3))],
    ),
    "newest keys": (
        lambda c: c.scale(0, [3], 0.0, queries=[-1], keys=slice(-4, -1), renormalize=True),
        [MatrixEdit("cut", 0, [3], lambda q, k, n: (q == n - 1) & (k >= n - 4) & (k < n - 1))],
    ),
    "scale": (
        lambda c: c.scale(0, [1], 0.25, keys=slice(None, None, 2)),
        [MatrixEdit("scale", 0, [1], lambda q, k, n: (k >= 0) & (k % 2 == 0), 0.25)],
    ),
    "scale, renormalized": (
        lambda c: c.scale(1, [1, 3], 3.0, queries=slice(1, 9), keys=[0, -1], renormalize=True),
        [
            MatrixEdit(
                "scale, renormalized",
                1,
                [1, 3],
                lambda q, k, n: (q >= 1) & (q < 9) & ((k == 0) | (k == n - 1)),
                3.0,
            )
        ],
    ),
    "sink": (lambda c: c.sink(1, [2], 1.5), [MatrixEdit("sink", 1, [2], number=1.5)]),
    "uniform": (
        lambda c: c.uniform(0, [1, 2], queries=slice(3, None)),
        [MatrixEdit("uniform", 0, [1, 2], lambda q, k, n: (q >= 3) & (k >= 0))],
    ),
    "ablate": (
        lambda c: c.ablate(1, [0, 3], queries=slice(2, None)),
        [MatrixEdit("output", 1, [0, 3], lambda q, k, n: (q >= 2) & (k >= 0), 0.0)],
    ),
}
TOGETHER = ("some keys", "scale", "scale, renormalized", "sink", "uniform", "ablate")
PADDING = [4, 0]


@pytest.fixture(scope="module")
def models():
    made = {}

    def get(name, attention="eager"):
        if name not in made:
            made[name] = model_of(name)
        made[name].set_attn_implementation(attention)
        return made[name]

    return get


def tokens(rows=2, length=12):
    torch.manual_seed(1)
    return torch.randint(2, 97, (rows, length))


def close(ours, theirs, tolerance=1e-5):
    assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


def together(change):
    for name in TOGETHER:
        CASES[name][0](change)


EDITS = [edit for name in TOGETHER for edit in CASES[name][1]]


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_each_edit_of_padded_prompts(models, name):
    model, ids = models("llama"), tokens()
    edit, by_hand = CASES[name]
    mask = torch.ones_like(ids)
    mask[0, : PADDING[0]] = 0
    theirs = by_matrix(model, by_hand, lambda: model(ids, attention_mask=mask).logits, PADDING)
    plain = model(ids, attention_mask=mask).logits
    with clearhead.intervene(model) as change:
        edit(change)
        ours = model(ids, attention_mask=mask).logits
    close(ours[mask.bool()], theirs[mask.bool()])
    assert (ours - plain)[mask.bool()].abs().max() > 1e-3 * plain.abs().max()
    assert torch.equal(model(ids, attention_mask=mask).logits, plain)


@pytest.mark.parametrize(
    ("name", "attention"),
    [
        ("llama", "sdpa"),
        ("llama", "clearhead"),
        ("llama", "flex_attention"),
        ("gemma2", "eager"),
        ("gpt_oss", "eager"),
        ("gpt_oss", "clearhead"),
        ("gpt2", "eager"),
    ],
)
@torch.no_grad()
def test_edits_together(models, name, attention, monkeypatch):
    import clearhead.adapters.transformers

    run_flex_as_it_is(monkeypatch)
    model, ids = models(name, attention), tokens()
    mask = torch.ones_like(ids)
    mask[0, : PADDING[0]] = 0
    theirs = by_matrix(model, EDITS, lambda: model(ids, attention_mask=mask).logits, PADDING)
    with clearhead.intervene(model) as change:
        together(change)
        ours = model(ids, attention_mask=mask).logits
    close(ours[mask.bool()], theirs[mask.bool()])


@pytest.mark.parametrize(
    ("name", "cache"),
    [("llama", "dynamic"), ("llama", "static"), ("gpt_oss", "dynamic"), ("gpt2", "dynamic")],
)
@torch.no_grad()
def test_generated_text(models, name, cache):
    model, ids = models(name), tokens()
    mask = torch.ones_like(ids)
    mask[0, : PADDING[0]] = 0
    options = {"max_new_tokens": 9, "do_sample": False, "output_scores": True, "return_dict_in_generate": True}

    def text(**more):
        done = model.generate(ids, attention_mask=mask, **options, **more)
        return done.sequences, torch.stack(done.scores)

    edits = [*EDITS, *CASES["last query"][1], *CASES["newest keys"][1]]
    sequences, scores = by_matrix(model, edits, text, PADDING)
    with clearhead.intervene(model) as change:
        together(change)
        CASES["last query"][0](change)
        CASES["newest keys"][0](change)
        ours = text(**({"cache_implementation": "static", "disable_compile": True} if cache == "static" else {}))
    assert torch.equal(ours[0], sequences)
    close(ours[1], scores)


@pytest.mark.parametrize("name", ["llama", "gpt_oss"])
def test_gradients(models, name):
    model, ids = models(name), tokens()

    def gradients():
        model.zero_grad()
        model(ids).logits[:, -1].square().sum().backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    theirs = by_matrix(model, EDITS, gradients)
    with clearhead.intervene(model) as change:
        together(change)
        ours = gradients()
    assert ours.keys() == theirs.keys()
    largest = max(g.abs().max() for g in theirs.values())
    for own in theirs:
        assert (ours[own] - theirs[own]).abs().max() <= 1e-5 * largest, own


# Other runs' weights and values


def weights_seen(model, ids, mask=None, padding=()):
    """The weights of each layer, (batch, heads, queries, keys), and what a watch saw."""
    from tests.edited_by_matrix import state

    by_matrix(model, [], lambda: model(ids, attention_mask=mask), padding)
    matrices = {number: w.detach().clone() for number, w in state.seen.items()}
    with clearhead.watch(model) as seen:
        model(ids, attention_mask=mask)
    return matrices, seen


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt_oss"])
@torch.no_grad()
def test_patched_patterns(models, name):
    model, (ids, others) = models(name), tokens(4).split(2)
    mask = torch.ones_like(ids)
    mask[0, : PADDING[0]] = 0
    matrices, seen = weights_seen(model, others, mask, PADDING)
    edits = [
        MatrixEdit("weights", 0, [0, 2], number=matrices[0]),
        MatrixEdit("weights", 1, [3], lambda q, k, n: (q >= 5) & (k >= 0), number=matrices[1]),
    ]
    theirs = by_matrix(model, edits, lambda: model(ids, attention_mask=mask).logits, PADDING)
    plain = model(ids, attention_mask=mask).logits
    with clearhead.intervene(model) as change:
        change.patch(0, [0, 2], seen)
        change.patch(1, [3], seen, queries=slice(5, None))
        ours = model(ids, attention_mask=mask).logits
    close(ours[mask.bool()], theirs[mask.bool()])
    assert (ours - plain).abs().max() > 1e-3 * plain.abs().max()


@torch.no_grad()
def test_patched_patterns_of_generated_text(models):
    model, (ids, others) = models("llama"), tokens(4).split(2)
    options = {"max_new_tokens": 6, "do_sample": False}
    longer = torch.cat([others, tokens(2, 6)], dim=1)
    matrices, seen = weights_seen(model, longer)
    plain = model.generate(ids, **options)
    with clearhead.intervene(model) as change:
        change.patch(0, [1], seen)
        change.patch(1, [0, 2], seen)
        text = model.generate(ids, **options)
        whole = model(text).logits
    edits = [
        MatrixEdit("weights", 0, [1], number=matrices[0]),
        MatrixEdit("weights", 1, [0, 2], number=matrices[1]),
    ]
    close(whole, by_matrix(model, edits, lambda: model(text).logits))
    assert torch.equal(whole[:, 11:-1].argmax(-1), text[:, 12:])
    assert not torch.equal(plain, text)


@pytest.mark.parametrize("heads", [[0, 3], [0, 1, 2, 3]])
@torch.no_grad()
def test_patched_pattern_and_values_give_the_output_of_that_run(models, heads):
    model, (ids, others) = models("llama"), tokens(4).split(2)
    _, seen = weights_seen(model, others)
    layer = [seen.layer(1, sequence=row) for row in range(2)]
    outputs = np.stack([np.asarray(one.weights) @ one.values for one in layer])
    with clearhead.intervene(model) as change:
        change.patch(1, heads, seen, values=True)
        ours = model(ids).logits
    with clearhead.intervene(model) as change:
        change.ablate(1, heads, to=outputs[:, heads])
        theirs = model(ids).logits
    close(ours, theirs)
    with clearhead.intervene(model) as change:
        change.patch(1, heads, seen, values=True, pattern=False)
        assert not torch.allclose(model(ids).logits, ours)


@torch.no_grad()
def test_patched_weights_of_arrays(models):
    model, ids = models("llama"), tokens(1)
    q, k = np.random.default_rng(0).standard_normal((2, 2, 12, 8)).astype(np.float32)
    w = clearhead.weights(q, k)
    matrix = torch.from_numpy(np.asarray(w))
    every = matrix[[0, 0, 0, 1]][None]
    theirs = by_matrix(model, [MatrixEdit("weights", 1, [2, 3], number=every)], lambda: model(ids).logits)
    with clearhead.intervene(model) as change:
        change.patch(1, [2, 3], w)
        close(model(ids).logits, theirs)
    with clearhead.intervene(model) as change:
        change.patch(1, [2], w[0])
        change.patch(1, [3], w[1])
        close(model(ids).logits, theirs)


# Factors


@pytest.mark.parametrize("renormalize", [False, True])
def test_gradients_of_factors(models, renormalize):
    """d loss / d factor is the edge's attribution, for all keys of some queries at once."""
    model, ids = models("llama"), tokens(1)
    rng = np.random.default_rng(0)
    values = torch.tensor(rng.uniform(0.5, 2, (2, 1, 12)), dtype=torch.float32)
    kind = "scale, renormalized" if renormalize else "scale"

    def loss():
        return model(ids).logits[:, -1].square().sum()

    ours, theirs = values.clone().requires_grad_(), values.clone().requires_grad_()
    every = torch.ones(4, 1, 12).index_copy(0, torch.tensor([1, 3]), theirs)
    edit = MatrixEdit(kind, 0, [1, 3], lambda q, k, n: (q >= n - 2) & (k >= 0), every)
    expected = by_matrix(model, [edit], loss)
    expected.backward()
    with clearhead.intervene(model) as change:
        change.scale(0, [1, 3], ours, queries=[-2, -1], renormalize=renormalize)
        got = loss()
        got.backward()
    close(got, expected)
    close(ours.grad, theirs.grad, 2e-5)


@torch.no_grad()
def test_factors_for_each_head_and_position(models):
    model, ids = models("llama"), tokens()
    mask = torch.ones_like(ids)
    mask[0, : PADDING[0]] = 0
    factors = np.random.default_rng(1).uniform(0, 2, (2, 12, 12)).astype(np.float32)
    by_row = []
    for pad in PADDING:  # the reference has no positions: factors stand where the tokens do
        moved = np.ones((4, 12, 12), np.float32)
        moved[[0, 2], pad:, pad:] = factors[:, : 12 - pad, : 12 - pad]
        by_row.append(moved)
    theirs = by_matrix(
        model,
        [MatrixEdit("scale", 1, [0, 2], number=torch.from_numpy(np.stack(by_row)))],
        lambda: model(ids, attention_mask=mask).logits,
        PADDING,
    )
    with clearhead.intervene(model) as change:
        change.scale(1, [0, 2], factors)
        ours = model(ids, attention_mask=mask).logits
    close(ours[mask.bool()], theirs[mask.bool()])


# Composition


@torch.no_grad()
def test_blocks_nest(models):
    model, ids = models("llama"), tokens()
    plain = model(ids).logits
    with clearhead.intervene(model) as change:
        together(change)
        once = model(ids).logits
    with clearhead.intervene(model) as outer:
        for name in TOGETHER[::2]:
            CASES[name][0](outer)
        with clearhead.intervene(model) as inner:
            for name in TOGETHER[1::2]:
                CASES[name][0](inner)
            nested = model(ids).logits
        model(ids)
    assert torch.equal(nested, once)
    assert torch.equal(model(ids).logits, plain)


@torch.no_grad()
def test_edits_end_with_the_block(models):
    model, ids = models("llama"), tokens()
    plain = model(ids).logits
    with pytest.raises(KeyError):
        broken(model)
    assert torch.equal(model(ids).logits, plain)


def broken(model):
    with clearhead.intervene(model) as change:
        change.ablate(0)
        raise KeyError


@torch.no_grad()
def test_other_heads_keep_their_bits(models):
    """Only edited heads are computed anew."""
    from clearhead.adapters.torch.calls import Answer
    from clearhead.observing import observing

    model, ids = models("llama"), tokens()
    outputs = []

    class Keeper:
        def wants(self, module):
            return getattr(module, "layer_idx", None) == 0

        def answer(self, call, compute):
            answer = compute()
            outputs.append(answer)
            return Answer(answer.output, answer.changes)

    with observing(model, Keeper()):
        model(ids)
    with clearhead.intervene(model) as change:
        edit = change.scale(0, [1, 2], 0.5)
        with observing(model, Keeper()):
            model(ids)
    plain, edited = outputs
    assert torch.equal(plain.output[:, [0, 3]], edited.output[:, [0, 3]])
    assert torch.allclose(plain.output[:, [1, 2]] / 2, edited.output[:, [1, 2]], atol=1e-6)
    assert plain.changes == ()
    assert edited.changes == (edit,)
    assert repr(edit) == "scale(layer=0, heads=[1, 2], 0.5)"


@torch.no_grad()
def test_rows_that_no_edit_chooses_keep_their_bits(models):
    model, ids = models("llama"), tokens()
    plain = model(ids).logits
    with clearhead.intervene(model) as change:
        change.cut(1, queries=slice(6, None), keys=0, sequence=1)
        ours = model(ids).logits
    assert torch.equal(ours[0], plain[0])
    assert torch.equal(ours[1, :6], plain[1, :6])
    assert (ours[1, 6:] != plain[1, 6:]).all(-1).all()


@torch.no_grad()
def test_nested_means_are_taken_once(models):
    model, ids = models("llama"), tokens()
    with clearhead.intervene(model) as change:
        change.ablate(0, [1, 2], to="mean", queries=[3])
        change.cut(0, [2, 3], keys=0, queries=slice(1, None))
        once = model(ids).logits
    with clearhead.intervene(model) as outer:
        outer.ablate(0, [1, 2], to="mean", queries=[3])
        with clearhead.intervene(model) as inner:
            inner.cut(0, [2, 3], keys=0, queries=slice(1, None))
            nested = model(ids).logits
    assert torch.equal(nested, once)


@torch.no_grad()
def test_patched_values_of_some_queries(models):
    model, (ids, others) = models("llama"), tokens(4).split(2)
    _, seen = weights_seen(model, others)
    outputs = np.stack([np.asarray((one := seen.layer(1, sequence=row)).weights) @ one.values for row in range(2)])
    with clearhead.intervene(model) as change:
        change.cut(1, [3], queries=slice(0, 8), keys=slice(1, 3))
        change.patch(1, [0, 3], seen, values=True, queries=slice(8, None))
        ours = model(ids).logits
    with clearhead.intervene(model) as change:
        change.cut(1, [3], queries=slice(0, 8), keys=slice(1, 3))
        change.ablate(1, [0, 3], to=outputs[:, [0, 3]], queries=slice(8, None))
        close(ours, model(ids).logits)


@torch.no_grad()
def test_changes_say_what_the_weights_became(models):
    """Weights edited as the answer's changes say, times values, are the model's output."""
    from clearhead.interventions.shown import edited_weights
    from clearhead.observing import observing

    model, ids, calls = models("gpt_oss"), tokens(1), []

    class Keeper:
        def wants(self, module):
            return getattr(module, "layer_idx", None) == 1

        def answer(self, call, compute):
            answer = compute()
            calls.append((call, answer))
            return answer

    with clearhead.intervene(model) as change:
        for name in ("some keys", "scale", "scale, renormalized", "sink", "last query"):
            CASES[name][0](change)
        with observing(model, Keeper()):
            model.generate(ids, max_new_tokens=4, do_sample=False)
    q = np.concatenate([call.query[0].float().numpy() for call, _ in calls], axis=1)
    (last, _), changes = calls[-1], dict.fromkeys(c for _, answer in calls for c in answer.changes)
    k, v = last.key[0].numpy(), last.value[0].numpy().repeat(2, 0)
    own = clearhead.weights(
        q, k, mask=clearhead.causal(align="end"), scale=last.scale, sink=last.sink.reshape(-1).numpy()
    )
    w = edited_weights(own, list(changes), ("decoder", 1), steps=[call.query.shape[2] for call, _ in calls])
    theirs = np.concatenate([answer.output[0].numpy() for _, answer in calls], axis=1)
    np.testing.assert_allclose(np.asarray(w) @ v, theirs, atol=1e-5)
