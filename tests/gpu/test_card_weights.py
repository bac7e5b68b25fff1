"""Weights of CUDA tensors, with tensors of this computer's memory and a stand-in for the driver."""

from types import SimpleNamespace

import numpy as np
import pytest

import clearhead
from clearhead import causal, window
from clearhead.definition import weights as definition
from clearhead.errors import InputError, MachineError, ShapeError
from clearhead.gpu import driver
from tests.gpu.comparing import drawn, unequal
from tests.gpu.stand_in import StandIn

torch = pytest.importorskip("torch")
FakeTensorMode = pytest.importorskip("torch._subclasses.fake_tensor").FakeTensorMode

from clearhead.adapters.torch import attend, attention_weights, card, rule_names  # noqa: E402
from clearhead.adapters.torch.card_weights import CardWeights, card_weights  # noqa: E402


@pytest.fixture(scope="module")
def stand_in():
    """A driver whose card has this computer's memory, and torch's current stream; its kernels are compared once."""
    library, own = StandIn(), driver.Driver.card
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "library", lambda: library)
        patch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=11))
        patch.setattr(driver.Driver, "card", lambda self, index: own(self, index or 0))  # a CPU's index is None
        driver.opened.forget()
        yield library
    driver.opened.forget()


BAND = causal() & window(60, None)


def tensors(seed, *shapes):
    return [torch.from_numpy(x) for x in drawn(seed, *shapes)]


def made(q, k, mask=BAND, sink=None, lse=None, **options):
    name = rule_names.split_rules(mask, options.pop("score", ()))[0].name
    return card_weights(q, k, [], sink, name, 0.3, lse)


@pytest.fixture(scope="module")
def pair(stand_in):
    """Weights on a card, and the CPU's."""
    q, k = tensors(1, (2, 4, 130, 32), (2, 2, 130, 32))
    sink = torch.linspace(-1, 1, 4)
    expected = clearhead.weights(q.numpy(), k.numpy(), mask=BAND, scale=0.3, sink=sink.numpy())
    return made(q, k, sink=sink), expected


INDICES = {
    "row": (..., -1, slice(None)),
    "column": (..., 7),
    "one": (1, 2, 129, 128),
    "rows": (0, slice(None), [5, -1, 5]),
    "rows upwards": (0, 1, slice(20, 2, -3)),
    "columns apart": (..., [129, 0, 128]),
    "block": (slice(None), slice(1, 3), slice(60, 70), slice(55, 68)),
    "booleans": (0, 0, np.arange(130) % 50 == 0),
    "points": (0, 0, [1, 2], [0, 1]),
    "new axis": (None, 0, 3, 100),
    "nothing": (0, 0, []),
    "some heads": ([1, 0], slice(None), 100, slice(90, 110)),
}


@pytest.mark.parametrize("name", INDICES)
def test_indices_give_tensors_with_the_cpus_bits(pair, name):
    w, expected = pair
    for found, wanted in ((w, expected), (w.scores, expected.scores)):
        x, y = found[INDICES[name]], np.asarray(wanted[INDICES[name]])
        assert isinstance(x, torch.Tensor)
        assert tuple(x.shape) == y.shape
        assert not unequal(x.numpy(), y)


def test_whole_heads_stay_lazy(pair, stand_in):
    w, expected = pair
    before = len(stand_in.launches)
    some = w[1, [2, 0]]
    assert isinstance(some, CardWeights)
    assert (repr(some), repr(some.scores)) == (
        "CardWeights(shape=(2, 130, 130), device='cpu')",
        "CardScores(shape=(2, 130, 130), device='cpu')",
    )
    assert len(stand_in.launches) == before
    assert not unequal(np.asarray(some), np.asarray(expected[1, [2, 0]]))
    assert not unequal(np.asarray(some.scores), np.asarray(expected.scores[1, [2, 0]]))
    assert not unequal(some.lse.numpy(), expected.lse[1, [2, 0]])
    assert not unequal(np.asarray(some.row(3)), expected[1, [2, 0]].row(3))
    assert not unequal(np.asarray(some.column(-1)), expected[1, [2, 0]].column(-1))
    assert not unequal(np.asarray(some.block(slice(2, 4))), expected[1, [2, 0]].block(slice(2, 4)))
    assert stand_in.launches[-1][2] == 11  # in torch's stream


def test_answers_are_arrays(pair):
    w, expected = pair
    everything, wanted = w.summary(), expected.summary()
    assert set(everything) == set(wanted)
    assert not any(unequal(everything[name], wanted[name]) for name in everything)
    some, other = (x[0].summary("entropy", queries=[-1]) for x in (w, expected))
    assert not unequal(some.entropy, other.entropy)
    assert not unequal(w.map(size=9), expected.map(size=9))
    assert not unequal(w.map(size=9, reduce="mean"), expected.map(size=9, reduce="mean"))
    assert not any(map(unequal, w.rows_of(5, top=3), expected.rows_of(5, top=3)))
    assert not unequal(clearhead.rollout([w.weights[0]]), clearhead.rollout([expected[0]]))


def test_rows_that_are_not_numbers(pair):
    """Maxima over queries pass over them, on a GPU and on any CPU."""
    q, k = tensors(8, *[(2, 130, 32)] * 2)
    q[0, 100], q[1, ::7] = torch.nan, torch.nan
    w, expected = made(q, k, causal()), clearhead.weights(q.numpy(), k.numpy(), scale=0.3)
    largest = definition.received_max(np.asarray(expected))
    assert (largest > 0).any(-1).all()
    for found in (w, expected):
        assert not unequal(found.summary("received_max").received_max, largest)
        assert not unequal(found.map(size=(1, 130))[:, 0], largest)
    names = ("entropy", "distance", "within", "first", "off_first", "top")
    found, wanted = (x.summary(*names, top=3, window=5) for x in (w, expected))
    assert not any(unequal(found[name], wanted[name]) for name in found)


def test_questions_wait_for_torchs_stream(pair, stand_in):
    w, _ = pair
    stand_in.called.clear()
    w.map(size=3)
    assert [call[:2] for call in stand_in.called] == [("record", 11), ("wait", 1), ("destroy", 1), ("launch", None)]


def test_the_log_sum_exp_of_attend(pair, stand_in):
    q, k = tensors(2, *[(2, 50, 32)] * 2)
    name = rule_names.split_rules(causal(), ())[0].name
    _, lse = card.on_card(q, k, k, [], None, name, 0.3)
    before = len(stand_in.launches)
    w = made(q, k, causal(), lse=lse)
    assert len(stand_in.launches) == before
    assert not unequal(w[0, -1].numpy(), clearhead.weights(q.numpy(), k.numpy(), scale=0.3)[0, -1])
    with pytest.raises(ShapeError, match=r"lse of shape \(2, 49\) and torch.float32 does not fit query \(2, 50, 32\)"):
        made(q, k, causal(), lse=lse[:, 1:])
    with pytest.raises(InputError, match="lse is on meta, query on cpu"):
        made(q, k, causal(), lse=lse.to("meta"))


def test_a_log_sum_exp_from_elsewhere(pair):
    """As of keys that are only some of all; −∞ is that of a query which sees nothing."""
    q, k = tensors(7, *[(60, 32)] * 2)
    lse = torch.linspace(0, 9, 60)
    lse[5:9] = -torch.inf
    w = made(q, k, causal(), lse=lse)
    expected = clearhead.weights(q.numpy(), k.numpy(), scale=0.3, lse=lse.numpy())
    assert not unequal(np.asarray(w), np.asarray(expected))
    found, wanted = (x.summary("entropy", "first", "top") for x in (w, expected))
    assert not any(unequal(found[name], wanted[name]) for name in wanted)


def test_operands_that_change(pair):
    q, k = tensors(3, *[(50, 32)] * 2)
    w = made(q, k)
    k.mul_(2)
    for ask in (lambda: w[3], lambda: w.summary("entropy"), lambda: w.scores[3], lambda: np.asarray(w)):
        with pytest.raises(InputError, match=r"the keys of shape \(50, 32\) were changed in place"):
            ask()


def test_what_is_refused(pair, monkeypatch):
    w, _ = pair
    q, k = tensors(4, *[(50, 32)] * 2)
    with pytest.raises(InputError, match="the documents are packed: move the tensors to the CPU"):
        made(q, k, clearhead.documents([20, 30]))
    lse = torch.zeros(50)
    with pytest.raises(InputError, match=r"the dtypes are torch.float16.*CPU"):
        made(q.half(), k.half(), lse=lse)
    with pytest.raises(InputError, match="its queries have dim 16"):
        made(q[:, :16].contiguous(), k[:, :16].contiguous(), lse=lse)
    with FakeTensorMode():
        x = torch.empty(8, 32, device="cuda", requires_grad=True)
        with pytest.raises(InputError, match="requires a gradient"):
            attention_weights(x, x.detach())
    with pytest.raises(InputError, match="are not compiled, traced or mapped"):
        torch.func.vmap(lambda x: made(x, x, lse=lse))(q[None])
    with pytest.raises(InputError, match="out= cannot receive numbers of a GPU"):
        w.block(out=np.empty(w.shape, np.float32))
    with pytest.raises(InputError, match=r"distances are not computed on a GPU.*CPU"):
        w.summary("distances")
    monkeypatch.setenv("CLEARHEAD_MEMORY", "0")
    with pytest.raises(InputError, match="more than CLEARHEAD_MEMORY=0"):
        w.row(0)


def test_a_card_with_other_bits(monkeypatch):
    """A kernel that gives one other bit is refused, and the others are used."""
    library = StandIn(spoil=lambda ptx: ptx.replace("0f3F800000", "0f3F800001") if ".entry weights_" in ptx else ptx)
    own = driver.Driver.card
    monkeypatch.setattr(driver, "library", lambda: library)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=None))
    monkeypatch.setattr(driver.Driver, "card", lambda self, index: own(self, index or 0))
    driver.opened.forget()
    q, k = tensors(5, *[(50, 32)] * 2)
    w = made(q, k, causal())
    with pytest.raises(MachineError, match=r"does not give the CPU's bits in the self-test \(\d+ numbers differ\)"):
        w[3]
    expected = clearhead.weights(q.numpy(), k.numpy(), scale=0.3)
    assert not unequal(w.map(size=5), expected.map(size=5))
    driver.opened.forget()


def test_tensors_of_the_cpu():
    """They give the lazy tensor that layers return, with gradients."""
    q, k, v = tensors(6, *[(2, 20, 32)] * 3)
    _, lse = attend(q, k, v, mask=BAND, scale=0.3)
    q.requires_grad_()
    w = attention_weights(q, k, mask=BAND, scale=0.3, lse=lse)
    expected = clearhead.weights(q.detach().numpy(), k.numpy(), mask=BAND, scale=0.3)
    assert not unequal(w[0, -1].detach().numpy(), expected[0, -1])
    w[0, -1].square().sum().backward()
    assert q.grad is not None
    with pytest.raises(InputError, match="key is list: give a tensor"):
        attention_weights(q, [1.0])
