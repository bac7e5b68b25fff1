"""Batches of no sequences and texts of no tokens: the model runs as without a watch or an edit, and nothing is seen."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

import clearhead  # noqa: E402
from clearhead.errors import InputError  # noqa: E402

EMPTY = [(0, 5), (2, 0), (0, 0)]


class Attention(nn.Module):
    """Causal self-attention, or over a mask of one's own; `memory` gives other keys."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, x, mask=None, memory=None):
        given = x if memory is None else memory
        q, k, v = (y.unflatten(-1, (2, 4)).transpose(1, 2) for y in (self.q(x), self.k(given), self.v(given)))
        causal = mask is None and memory is None
        return functional.scaled_dot_product_attention(q, k, v, mask, is_causal=causal).transpose(1, 2).flatten(2)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(Attention(), Attention()).eval()


def table_for(shape, masked):
    return torch.ones(shape[0], 1, shape[1], shape[1], dtype=torch.bool).tril() if masked else None


def edited(model, *texts):
    """A model's outputs without head 1 of its first layer."""
    with clearhead.intervene(model) as change:
        change.ablate(0, [1])
        return [model(x) for x in texts]


@torch.no_grad()
@pytest.mark.parametrize("shape", EMPTY, ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_nothing_is_seen_of_nothing(shape, masked, model, tmp_path):
    x = torch.zeros(*shape, 8)
    with clearhead.watch(model) as seen:
        assert model[0](x, table_for(shape, masked)).shape == x.shape
    assert (seen.runs, seen.nbytes) == ([], 0)
    with pytest.raises(InputError, match="call the model inside the with block"):
        seen.summary("entropy")
    seen.save(tmp_path / "seen.safetensors")
    assert clearhead.load_watch(tmp_path / "seen.safetensors").runs == []


@torch.no_grad()
def test_texts_before_and_after_are_seen(model):
    x = torch.randn(2, 6, 8)
    with clearhead.watch(model) as alone:
        model(x)
    with clearhead.watch(model) as seen:
        for given in (x[:0], x, x[:, :0]):
            model(given)
    assert len(seen.runs) == 1
    for number in (0, 1):
        shown, expected = (np.asarray(watch.layer(number, sequence=1).weights) for watch in (seen, alone))
        np.testing.assert_array_equal(shown, expected)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["attention", "encoder"])
@pytest.mark.parametrize("shape", EMPTY[:2], ids=str)
def test_torchs_own_layers(kind, shape):
    x = torch.zeros(*shape, 8)
    if kind == "attention":
        model, given = nn.MultiheadAttention(8, 2, batch_first=True).eval(), (x, x, x)
    else:
        model, given = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2).eval(), (x,)
    with clearhead.watch(model) as seen:
        model(*given)
    assert not seen.runs


@torch.no_grad()
@pytest.mark.parametrize("masked", [False, True])
def test_queries_without_keys_are_seen(masked, model):
    x, table = torch.randn(2, 3, 8), torch.ones(2, 1, 3, 0, dtype=torch.bool) if masked else None
    with clearhead.watch(model) as seen:
        model[0](x, table, memory=x[:, :0])
    assert seen.layer(0, sequence=1).weights.shape == (2, 3, 0)


@pytest.mark.parametrize("shape", EMPTY, ids=str)
def test_edits_let_it_pass(shape, model):
    empty, x = torch.zeros(*shape, 8), torch.randn(2, 6, 8)
    nothing, after = edited(model, empty, x)
    assert nothing.shape == empty.shape
    assert torch.equal(after, edited(model, x)[0])


@pytest.mark.parametrize("shape", EMPTY, ids=str)
def test_an_edit_of_nothing_is_told(shape, model):
    with pytest.raises(InputError, match="given a token"):
        edited(model, torch.zeros(*shape, 8))


@pytest.mark.parametrize("shape", EMPTY, ids=str)
def test_gradients_of_outputs(shape, model):
    with clearhead.output_gradients(model) as gradients:
        model(torch.zeros(*shape, 8, requires_grad=True)).sum().backward()
    assert not gradients.passes


def test_a_model_without_numbers_is_told():
    model, x = nn.Sequential(Attention()).to("meta"), torch.zeros(2, 6, 8, device="meta")
    with pytest.raises(InputError, match="call the model itself"), clearhead.watch(model):
        model(x)
    with pytest.raises(InputError, match="meta device"):
        edited(model, x)
