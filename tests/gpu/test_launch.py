"""The launch and every error, against a stand-in for NVIDIA's driver."""

import ctypes
import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import clearhead
from clearhead import causal, full
from clearhead.errors import DtypeError, InputError, MachineError, ShapeError
from clearhead.gpu import attend, confirmed, driver, launch
from clearhead.machine import store
from tests.gpu.comparing import aligned, drawn
from tests.gpu.stand_in import StandIn


@dataclass
class OnCard:
    """An array as other libraries give theirs."""

    array: Any
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {**self.array.__array_interface__, "version": 3, **self.changes}


@pytest.fixture
def card(monkeypatch, tmp_path):
    """A function that installs a stand-in of some properties."""

    def install(**properties: Any) -> StandIn:
        stand_in = StandIn(**properties)
        monkeypatch.setattr(driver, "library", lambda: stand_in)
        driver.opened.forget()
        return stand_in

    monkeypatch.setenv("CLEARHEAD_CACHE_DIR", str(tmp_path))
    tmp_path.chmod(0o700)
    store.private_directory.cache_clear()
    yield install
    driver.opened.forget()


def attended(q, k, v, **options):
    out, lse = aligned(np.zeros((*q.shape[:-1], v.shape[-1]))), aligned(np.zeros(q.shape[:-1]))
    attend(*map(OnCard, (q, k, v)), out=OnCard(out), lse=OnCard(lse), **options)
    return out, lse


def test_attend_gives_the_cpus_bits(card):
    stand_in = card()
    q, k, v = drawn(1, (2, 4, 100, 32), (2, 2, 100, 32), (2, 2, 100, 32))
    expected = clearhead.attend(q, k, v)
    out, lse = attended(q, k, v, stream=7)
    assert out.tobytes() == expected.output.tobytes()
    assert lse.tobytes() == expected.lse.tobytes()
    assert stand_in.launches[-1] == (2 * 8, 67328, 7)
    assert not stand_in.memory  # what the self-test took
    assert not stand_in.contexts


def test_axes_before_the_batch_are_launches_of_their_own(card):
    stand_in = card()
    q, k, v = drawn(2, (2, 3, 2, 40, 32), (2, 1, 2, 70, 32), (70, 32))
    expected = clearhead.attend(q, k, v, mask=full(), scale=0.25)
    count = len(stand_in.launches)
    out, lse = attended(q, k, v, mask=full(), scale=0.25)
    assert out.tobytes() == expected.output.tobytes()
    assert lse.tobytes() == expected.lse.tobytes()
    assert len(stand_in.launches) - count == 2 + len(list(confirmed.samples(32)))


def test_output_of_any_strides(card):
    card()
    q, k, v = drawn(3, *[(3, 50, 32)] * 3)
    out, lse = aligned(np.zeros((50, 3, 32))).swapaxes(0, 1), aligned(np.zeros((3, 50)))
    attend(*map(OnCard, (q, k, v)), out=OnCard(out), lse=OnCard(lse))
    assert np.ascontiguousarray(out).tobytes() == clearhead.attention(q, k, v).tobytes()


def test_nothing_to_compute(card):
    stand_in = card()
    q, k, v = (np.zeros((2, n, 32), np.float32) for n in (0, 5, 5))
    attended(q, k, v, mask=causal(align="end"))
    assert not stand_in.launches


# The self-test


def test_the_self_test_runs_once_on_a_card_and_driver(card, tmp_path):
    q, k, v = drawn(4, *[(10, 32)] * 3)
    for properties, runs in (({}, True), ({}, False), ({"version": 13010}, True)):
        stand_in = card(**properties)
        attended(q, k, v)
        assert (len(stand_in.launches) > 1) is runs
    assert len([path for path in tmp_path.iterdir() if "confirmed" in path.name]) == 2


def test_a_card_with_other_bits_is_refused(card):
    """Each time anew: what was refused is not remembered."""
    q, k, v = drawn(5, *[(10, 32)] * 3)
    card(spoil=lambda ptx: ptx.replace("mul.rn.f32", "mul.f32").replace("add.rn.f32", "add.f32"))
    for _ in range(2):
        with pytest.raises(MachineError, match=r"does not give the CPU's bits in the self-test \(\d+ numbers differ\)"):
            attended(q, k, v)


# What the kernel cannot do


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mask": clearhead.window(3)}, "a mask beyond these"),
        ({"mask": clearhead.dense(np.ones((10, 10), bool))}, "a mask beyond these"),
        ({"mask": clearhead.documents([10])}, "a mask beyond these"),
    ],
    ids=["window", "dense", "documents"],
)
def test_masks_that_only_the_cpu_knows(card, options, words):
    card()
    with pytest.raises(InputError, match=f"{words}: move the tensors to the CPU"):
        attended(*drawn(6, *[(10, 32)] * 3), **options)


def test_shapes_dtypes_and_strides(card):
    card()
    q, k, v = drawn(7, *[(10, 32)] * 3)
    with pytest.raises(InputError, match="its queries have dim 16, its values 16"):
        attended(*(aligned(x[:, :16]) for x in (q, k, v)))
    with pytest.raises(InputError, match="its queries have dim 32, its values 64"):
        attended(q, k, aligned(np.zeros((10, 64))))
    with pytest.raises(InputError, match="strides of its keys are not dense"):
        attended(q, aligned(np.zeros((10, 33)))[:, :32], v)
    with pytest.raises(InputError, match="strides of its queries are not dense"):
        attended(aligned(np.zeros((32, 10))).T, k, v)
    with pytest.raises(InputError, match="an address is not a multiple of 16 bytes"):
        attended(q, k, aligned(np.zeros((11, 32))).reshape(-1)[1:321].reshape(10, 32))
    with pytest.raises(ShapeError, match="cannot be compared with keys of dim 64"):
        attended(q, aligned(np.zeros((10, 64))), v)
    with pytest.raises(DtypeError, match="dtypes float32, float64 and float32"):
        attended(q, k.astype(np.float64), v)
    out, lse = OnCard(np.zeros((10, 32), np.float32)), OnCard(np.zeros(10, np.float32))
    with pytest.raises(InputError, match="it is float64: move the tensors"):
        attend(*(OnCard(x.astype(np.float64)) for x in (q, k, v)), out=out, lse=lse)
    with pytest.raises(ShapeError, match=r"out has shape \(9, 32\)"):
        attend(*map(OnCard, (q, k, v)), out=OnCard(q[:9]), lse=OnCard(np.zeros(10, np.float32)))
    with pytest.raises(ShapeError, match=r"lse of shape \(10,\) has strides"):
        attend(*map(OnCard, (q, k, v)), out=OnCard(k), lse=OnCard(np.zeros(20, np.float32)[::2]))
    with pytest.raises(InputError, match="q is a list without __cuda_array_interface__"):
        attend([1], k, v, out=k, lse=k)
    wide = OnCard(np.broadcast_to(q[:1], (1 << 30, 32)))
    with pytest.raises(InputError, match="too many"):
        attend(OnCard(q), wide, wide, out=out, lse=lse, mask=full())


# Machines without a card, with an old one, and drivers that refuse


def test_no_driver(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    driver.opened.forget()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: (_ for _ in ()).throw(OSError("no such file")))
    with pytest.raises(
        MachineError, match=r"libcuda.so.1 cannot be loaded \(no such file\).*move the tensors to the CPU"
    ):
        driver.driver()


def test_no_card(card):
    card(cards=0)
    with pytest.raises(MachineError, match="card 0 is not there, the driver sees 0"):
        driver.driver().card(0)


def test_an_old_card(card):
    card(_75=7, _76=5)
    with pytest.raises(MachineError, match=r"compute capability 7.5, but the kernel needs 8.0 \(Ampere\)"):
        launch.tile_of(driver.driver().card(0), 64)


def test_too_little_shared_memory(card):
    card(_97=49152)
    with pytest.raises(MachineError, match="49152 bytes of shared memory for a group of threads, too few for dim 64"):
        launch.tile_of(driver.driver().card(0), 64)


@pytest.mark.parametrize("name", ["cuInit", "cuDevicePrimaryCtxRetain", "cuMemAlloc_v2", "cuLaunchKernel"])
def test_a_refused_call_leaves_no_context(card, name):
    stand_in = card(refuse={name: 2})
    with pytest.raises(MachineError, match=f"refuses {name} with error 2: as the test wants"):
        attended(*drawn(8, *[(10, 32)] * 3))
    assert not stand_in.contexts


def test_the_compilers_words(card):
    card(refuse={"cuModuleLoadDataEx": 222})
    with pytest.raises(MachineError, match=r"cuModuleLoadDataEx with error 222.*Its compiler says: nothing more"):
        attended(*drawn(9, *[(10, 32)] * 3))


def test_unknown_errors(card):
    card(refuse={"cuInit": 999, "cuGetErrorString": 1})
    with pytest.raises(MachineError, match="refuses cuInit with error 999: unknown error"):
        driver.driver()
