"""A watch of a model on a card asks its large questions there; any other, and all that it refuses, of the CPU."""

import numpy as np
import pytest

import clearhead
from clearhead.errors import MachineError
from clearhead.gpu import driver, lent
from tests.gpu.comparing import drawn, unequal
from tests.gpu.stand_in import StandIn

QUESTIONS = ("entropy", "distance", "within", "first", "off_first", "top", "received_max", "received_mean")


@pytest.fixture(scope="module")
def stand_in():
    """A driver whose card has this computer's memory; its kernels are compared once."""
    library = StandIn()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "library", lambda: library)
        patch.setattr(lent, "WORTH_A_CARD", 1 << 12)
        driver.opened.forget()
        yield library
    driver.opened.forget()


def both(dtype=np.float32, dim=32, **rules):
    q, k = (x.astype(dtype) for x in drawn(1, (4, 100, dim), (2, 100, dim)))
    own = clearhead.weights(q, k, **rules)
    return lent.lend(own, 0), own


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_large_questions_are_asked_on_the_card(stand_in, dtype):
    w, own = both(dtype, mask=clearhead.causal() & clearhead.window(40, None), sink=np.linspace(-1, 1, 4, dtype=dtype))
    for ask in (
        lambda w: w.summary(*QUESTIONS).values(),
        lambda w: [w.map(size=9), w.map(size=9, reduce="mean")],
        lambda w: [np.asarray(w)],
    ):
        before = len(stand_in.launches)
        assert not any(unequal(a, b) for a, b in zip(ask(w), ask(own), strict=True))
        assert len(stand_in.launches) > before
    assert not stand_in.memory  # the model needs it


def test_other_questions_are_asked_of_the_cpu(stand_in):
    w, own = both()
    for ask in (
        lambda w: w.row(-1),
        lambda w: w.summary("groups", groups={"first": [0]}).groups,
        lambda w: w.summary("distances").distances,
    ):
        before = len(stand_in.launches)
        assert not unequal(ask(w), ask(own))
        assert len(stand_in.launches) == before


def test_rules_without_a_kernel(stand_in):
    w, own = both(mask=clearhead.documents([60, 40]))
    assert w is own


def test_a_dim_without_a_kernel(stand_in):
    w, own = both(dim=40)
    assert w is own
    w, own = both(np.float64)
    assert w is own


def test_a_card_that_fails(stand_in):
    """The question is answered all the same."""
    stand_in.refuse["cuMemAlloc_v2"] = 2
    w, own = both()
    assert not unequal(w.summary("entropy").entropy, own.summary("entropy").entropy)
    with pytest.raises(MachineError, match="cuMemAlloc_v2 with error 2"):
        w.source.elsewhere.there()
    stand_in.refuse.clear()


def test_a_watch_lends_the_models_card(stand_in):
    """A record notes the card; a recording from a file has none."""
    torch = pytest.importorskip("torch")

    class Layer(torch.nn.Module):  # type: ignore[name-defined]
        def forward(self, x):
            return torch.nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True)

    torch.manual_seed(0)
    model = torch.nn.Sequential(Layer())
    with clearhead.watch(model) as seen, torch.no_grad():
        model(torch.randn(1, 2, 100, 32))
    record = seen.run(-1).records["self", 0]
    assert record.card is None
    expected = seen.summary(*QUESTIONS)
    record.card = 0
    record.views.clear()
    before = len(stand_in.launches)
    found = seen.summary(*QUESTIONS)
    assert len(stand_in.launches) > before
    assert not any(unequal(found[name], expected[name]) for name in expected)
