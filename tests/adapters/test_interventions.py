"""Interventions give what a model gives whose matrix of weights is edited by hand."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import clearhead  # noqa: E402
from clearhead.errors import InputError  # noqa: E402
from tests.edited_by_matrix import MatrixEdit, by_matrix  # noqa: E402
from tests.tiny_models import model_of  # noqa: E402

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
def test_edits_together(models, name, attention):
    import clearhead.adapters.transformers  # noqa: F401

    model, ids = models(name, attention), tokens()
    mask = torch.ones_like(ids)
    mask[0, : PADDING[0]] = 0
    theirs = by_matrix(model, EDITS, lambda: model(ids, attention_mask=mask).logits, PADDING)
    with clearhead.intervene(model) as change:
        together(change)
        ours = model(ids, attention_mask=mask).logits
    close(ours[mask.bool()], theirs[mask.bool()])


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt_oss", "gpt2"])
@pytest.mark.parametrize("cache", ["dynamic", "static"])
@torch.no_grad()
def test_generated_text(models, name, cache):
    if cache == "static" and name != "llama":
        pytest.skip("one family is enough for a cache with room")
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


_ = InputError
