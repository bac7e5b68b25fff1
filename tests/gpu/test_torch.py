"""CUDA tensors in the torch adapter, with tensors of this computer's memory and a stand-in for the driver."""

from types import SimpleNamespace

import numpy as np
import pytest

import clearhead
from clearhead.errors import InputError
from clearhead.gpu import confirmed, driver
from tests.gpu.comparing import aligned, drawn
from tests.gpu.stand_in import StandIn

torch = pytest.importorskip("torch")
FakeTensorMode = pytest.importorskip("torch._subclasses.fake_tensor").FakeTensorMode

from clearhead.adapters.torch import card, rule_names, sdpa  # noqa: E402
from clearhead.rules.masks import causal, full, window  # noqa: E402


@pytest.fixture
def stand_in(monkeypatch):
    """A driver whose only card has this computer's memory, and torch's current stream."""
    library = StandIn()
    monkeypatch.setattr(driver, "library", lambda: library)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=11))
    own = driver.Driver.card
    monkeypatch.setattr(driver.Driver, "card", lambda self, index: own(self, index or 0))
    for kept in (driver.driver.cache_clear, confirmed.known.clear, card.refused_by_card.cache_clear):
        kept()
    yield library
    for kept in (driver.driver.cache_clear, confirmed.known.clear, card.refused_by_card.cache_clear):
        kept()


def rule(mask=None, score=()):
    return rule_names.split_rules(mask or causal(), score)[0].name


def tensors(seed, *shapes):
    return [torch.from_numpy(x) for x in drawn(seed, *shapes)]


def test_the_operator_in_torchs_stream(stand_in):
    q, k, v = tensors(1, (2, 4, 100, 32), (2, 2, 100, 32), (2, 2, 100, 32))
    output, lse = card.on_card(q, k, v, [], None, rule(), 32**-0.5)
    expected = clearhead.attend(q.numpy(), k.numpy(), v.numpy())
    assert np.ascontiguousarray(output.numpy()).tobytes() == expected.output.tobytes()
    assert lse.numpy().tobytes() == expected.lse.tobytes()
    assert output.transpose(1, 2).is_contiguous()  # so that heads concatenate without a copy
    assert stand_in.launches[-1][2] == 11


def test_views_of_a_packed_projection(stand_in):
    packed = torch.from_numpy(aligned(np.random.default_rng(2).standard_normal((2, 90, 3, 2, 64))))
    q, k, v = (x.transpose(1, 2) for x in packed.unbind(2))
    output, _ = card.on_card(q, k, v, [], None, rule(full()), 0.125)
    expected = clearhead.attention(q.numpy(), k.numpy(), v.numpy(), mask=full())
    assert np.ascontiguousarray(output.numpy()).tobytes() == expected.tobytes()


def test_what_the_operator_refuses(stand_in):
    q, k, v = tensors(3, *[(2, 10, 32)] * 3)
    bare = {"tables": [], "sink": None, "rule": rule(), "scale": 1.0}
    for change, words in (
        ({"sink": torch.zeros(2)}, "a sink"),
        ({"tables": [torch.zeros(2)]}, "arrays in its rules"),
        ({"rule": rule(window(3))}, "a mask beyond these"),
        ({"rule": rule(score=(clearhead.softcap(30.0),))}, "score rules"),
    ):
        with pytest.raises(InputError, match=f"{words}.*CPU"):
            card.on_card(q, k, v, **(bare | change))
    with pytest.raises(InputError, match=r"this call has torch.float16: move its tensors to the CPU"):
        card.on_card(q.half(), k.half(), v.half(), **bare)


def test_gradients():
    with pytest.raises(InputError, match=r"an operand requires one: call under torch.no_grad\(\)"):
        card.check_gradients(SimpleNamespace(is_cuda=True))
    card.check_gradients(torch.zeros(1))


def test_what_the_drop_in_leaves_to_torch(stand_in):
    q, k, v = tensors(4, *[(2, 3, 40, 64)] * 3)
    assert card.left_to_torch(q, k, v, None, 0.0) is None
    assert card.left_to_torch(q[:1], k[:1], v[:1], None, 0.0) is None
    assert "attn_mask" in card.left_to_torch(q, k, v, torch.zeros(40, 40), 0.0)
    assert "dropout" in card.left_to_torch(q, k, v, None, 0.1)
    assert "not computed in float32" in card.left_to_torch(q.half(), k.half(), v.half(), None, 0.0)
    assert "dims are 40 and 40" in card.left_to_torch(q[..., :40], k[..., :40], v[..., :40], None, 0.0)
    columns = torch.zeros(2, 3, 64, 40).transpose(-1, -2)
    assert "not dense" in card.left_to_torch(columns, k, v, None, 0.0)
    wide = torch.zeros(2, 3, 40, 65)[..., :64]
    assert "16 bytes" in card.left_to_torch(q, wide, v, None, 0.0)
    assert "gradients" in card.left_to_torch(q.clone().requires_grad_(), k, v, None, 0.0)
    with torch.no_grad():
        assert card.left_to_torch(q.clone().requires_grad_(), k, v, None, 0.0) is None
    torch.func.vmap(lambda x: report(card.left_to_torch(x, x, x, None, 0.0)) or x)(q)


def report(why):
    assert "transformed" in why


def test_a_card_that_cannot(monkeypatch, stand_in):
    stand_in.attributes[75] = 7
    q, k, v = tensors(5, *[(2, 10, 64)] * 3)
    assert "compute capability 7.0" in card.left_to_torch(q, k, v, None, 0.0)


def test_cuda_tensors_are_told_apart():
    """Tensors without memory stand for CUDA's: a compiled call is torch's, and so is one over two devices."""
    with FakeTensorMode():
        q = torch.empty(1, 2, 8, 64, device="cuda")
        assert "compiled" in sdpa.fallback_reason(q, q, q, None, 0.0, True, False)
        there = torch.empty(1, 2, 8, 64)
        assert sdpa.fallback_reason(q, there, q, None, 0.0, True, False) == "its tensors are on cuda:0 and cpu"
