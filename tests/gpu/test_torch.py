"""CUDA tensors in the torch adapter, with tensors of this computer's memory and a stand-in for the driver."""

from types import SimpleNamespace

import numpy as np
import pytest

import clearhead
from clearhead.errors import InputError, MachineError
from clearhead.gpu import driver
from tests.gpu.comparing import aligned, drawn
from tests.gpu.stand_in import StandIn

torch = pytest.importorskip("torch")
FakeTensorMode = pytest.importorskip("torch._subclasses.fake_tensor").FakeTensorMode

from clearhead.adapters.torch import card, dispatch, operator, rule_names, sdpa  # noqa: E402
from clearhead.rules.masks import causal, full  # noqa: E402


@pytest.fixture
def stand_in(monkeypatch):
    """A driver whose first card has this computer's memory, and torch's current stream."""
    library = StandIn(cards=2)
    monkeypatch.setattr(driver, "library", lambda: library)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=11))
    own = driver.Driver.card
    monkeypatch.setattr(driver.Driver, "card", lambda self, index: own(self, index or 0))  # a CPU's index is None
    driver.opened.forget()
    yield library
    driver.opened.forget()


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
    with pytest.raises(InputError, match="the documents are packed: move the tensors to the CPU"):
        card.on_card(q, k, v, **(bare | {"rule": rule(clearhead.documents([3, 7]))}))
    with pytest.raises(InputError, match=r"the dtypes are torch.float16: move the tensors to the CPU"):
        card.on_card(q.half(), k.half(), v.half(), **bare)
    with pytest.raises(InputError, match="query, key and value are on cpu, meta: move them to one device"):
        card.on_card(q, k.to("meta"), v, **bare)


def test_torch_calls_the_operator_for_cuda_tensors():
    registered = torch._C._dispatch_has_kernel_for_dispatch_key
    assert registered("clearhead::attention", "CUDA")
    assert not registered("clearhead::attention_backward", "CUDA")


@pytest.mark.parametrize("attend", [operator.attend, dispatch.operator], ids=["eager", "compiled"])
@pytest.mark.parametrize("wants", range(3))
def test_gradients(attend, wants):
    """The call fails, not its backward."""
    with FakeTensorMode():
        x = [torch.empty(1, 2, 8, 64, device="cuda", requires_grad=n == wants) for n in range(3)]
        with pytest.raises(InputError, match=r"requires a gradient: call under torch.no_grad\(\), or move the tensors"):
            attend(*x, [], None, rule(), 0.125)
        with torch.no_grad():
            assert not card.wants_gradients(x[0], x[1], x[2], [], None)


def test_a_tensors_own_card(stand_in):
    with FakeTensorMode():
        place, stream = card.place_of(torch.empty(1, device="cuda:1"))
    assert (place.index, stream) == (1, 11)


def test_what_the_drop_in_leaves_to_torch(stand_in):
    q, k, v = tensors(4, *[(2, 3, 40, 64)] * 3)
    assert card.left_to_torch(q, k, v, None, 0.0) is None
    assert card.left_to_torch(q[:1], k[:1], v[:1], None, 0.0) is None
    assert "attn_mask" in card.left_to_torch(q, k, v, torch.zeros(40, 40), 0.0)
    assert "dropout" in card.left_to_torch(q, k, v, None, 0.1)
    assert "not computed in float32" in card.left_to_torch(q.half(), k.half(), v.half(), None, 0.0)
    assert "its queries have dim 40, its values 40" in card.left_to_torch(
        q[..., :40], k[..., :40], v[..., :40], None, 0.0
    )
    columns = torch.zeros(2, 3, 64, 40).transpose(-1, -2)
    assert "not dense" in card.left_to_torch(columns, k, v, None, 0.0)
    shifted = torch.from_numpy(aligned(np.zeros(2 * 3 * 40 * 64 + 1))[1:]).reshape(q.shape)
    assert "an address is not" in card.left_to_torch(q, k, shifted, None, 0.0)
    assert "negated" in card.left_to_torch(q, torch._neg_view(k), v, None, 0.0)
    many = torch.zeros(2, 3, 1, 64).expand(2, 3, 1 << 30, 64)
    assert "too many" in card.left_to_torch(q, many, many, None, 0.0)
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


def test_a_card_with_other_bits(stand_in):
    """The drop-in hands over what the operator refuses."""
    stand_in.spoil = lambda ptx: ptx.replace("0f3F800000", "0f3F800001")
    q, k, v = tensors(6, *[(2, 10, 32)] * 3)
    assert "does not give the CPU's bits" in card.left_to_torch(q, k, v, None, 0.0)
    with pytest.raises(MachineError, match="does not give the CPU's bits"):
        card.on_card(q, k, v, [], None, rule(), 0.25)


def test_refusals_that_pass(stand_in):
    q, k, v = tensors(7, *[(2, 10, 32)] * 3)
    stand_in.refuse["cuModuleLoadDataEx"] = 222
    assert "refuses cuModuleLoadDataEx with error 222" in card.left_to_torch(q, k, v, None, 0.0)
    stand_in.refuse.clear()
    stand_in.capturing.add(11)
    assert "before the CUDA graph is captured" in card.left_to_torch(q, k, v, None, 0.0)
    stand_in.capturing.clear()
    assert card.left_to_torch(q, k, v, None, 0.0) is None


def test_cuda_tensors_are_told_apart():
    """Tensors without memory stand for CUDA's: a compiled call is torch's, and so is one over two devices."""
    with FakeTensorMode():
        q = torch.empty(1, 2, 8, 64, device="cuda")
        assert "compiled" in sdpa.fallback_reason(q, q, q, None, 0.0, True, False)
        there = torch.empty(1, 2, 8, 64)
        assert sdpa.fallback_reason(q, there, q, None, 0.0, True, False) == "its tensors are on cuda:0 and cpu"
