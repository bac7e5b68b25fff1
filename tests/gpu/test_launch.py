"""The launch and every error, against a stand-in for NVIDIA's driver."""

import ctypes
import os
import sys
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest

import clearhead
from clearhead import causal, full
from clearhead.engine.bounded_cache import SMALL
from clearhead.errors import DtypeError, InputError, MachineError, ShapeError
from clearhead.gpu import attend, confirmed, driver, launch
from clearhead.gpu.card_array import CardArray, Layout
from clearhead.gpu.card_rules import NO_RULES
from clearhead.kernels.abi.variant import PLAIN_VARIANT
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

    def install(kind: type[StandIn] = StandIn, **properties: Any) -> StandIn:
        stand_in = kind(**properties)
        monkeypatch.setattr(driver, "library", lambda: stand_in)
        driver.opened.forget()
        return stand_in

    monkeypatch.setenv("CLEARHEAD_CACHE_DIR", str(tmp_path))
    tmp_path.chmod(0o700)
    store.private_directory.cache_clear()
    yield install
    driver.opened.forget()


def attended(q, k, v, out=None, lse=None, **options):
    out = aligned(np.zeros((*q.shape[:-1], v.shape[-1]))) if out is None else out
    lse = aligned(np.zeros(q.shape[:-1])) if lse is None else lse
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


def test_axes_whose_strides_join_are_one_launch(card):
    stand_in = card()
    q, k, v = drawn(12, (5, 1, 2, 4, 10, 32), (5, 1, 2, 2, 10, 32), (5, 1, 2, 2, 10, 32))
    expected = clearhead.attend(q, k, v)
    out, lse = attended(q, k, v)
    assert len(stand_in.launches) == 1 + len(list(confirmed.samples(32)))
    assert out.tobytes() == expected.output.tobytes()
    assert lse.tobytes() == expected.lse.tobytes()
    k, v = (x[::-1].swapaxes(0, 2) for x in (k, v))  # the axes of queries join, those of keys do not
    q = aligned(q.swapaxes(0, 2))
    assert attended(q, k, v)[0].tobytes() == clearhead.attention(q, k, v).tobytes()
    assert len(stand_in.launches) == 1 + 2 + len(list(confirmed.samples(32)))


def test_windows_and_sinks(card):
    """Each kind of kernel is compared before its first use, and only then."""
    stand_in = card()
    q, k, v = drawn(27, (3, 2, 2, 40, 32), (3, 1, 2, 70, 32), (3, 1, 2, 70, 32))
    sink, mask = aligned(np.linspace(-2, 2, 12).reshape(3, 2, 2)), clearhead.window(30, 5, align="end")
    expected = clearhead.attend(q, k, v, mask=mask, sink=sink)
    for _ in range(2):
        count = len(stand_in.launches)
        out, lse = attended(q, k, v, mask=mask, sink=OnCard(sink, {"stream": 5}), stream=7)
        assert out.tobytes() == expected.output.tobytes()
        assert lse.tobytes() == expected.lse.tobytes()
    assert len(stand_in.launches) - count == 3  # one for each index of the first axis, with its own sinks
    assert ("record", 5) in [call[:2] for call in stand_in.called]
    assert set(driver.driver().card(0).kernels) == {("windowed", 32, PLAIN_VARIANT)}


def test_sinks_that_do_not_fit(card):
    card()
    q, k, v = drawn(28, *[(2, 10, 32)] * 3)
    with pytest.raises(ShapeError, match=r"sink has shape \(1,\) and dtype float32, the heads \(2,\) and float32"):
        attended(q, k, v, sink=OnCard(aligned(np.zeros(1))))
    with pytest.raises(ShapeError, match=r"sink of shape \(2,\) has strides \(8,\): give a contiguous array"):
        attended(q, k, v, sink=OnCard(aligned(np.zeros(4))[::2]))
    lse = aligned(np.zeros((2, 10)))
    with pytest.raises(ShapeError, match=r"lse \(2, 10\) overlaps sink \(2,\)"):
        attended(q, k, v, lse=lse, sink=OnCard(lse[1, :2]))


def test_many_launches_count_as_large():
    one, many = (
        launch.Launch("attention", 32, 1, (launch.Addresses(0, 0, 0, 0, 0),) * n, 1, (), NO_RULES) for n in (1, 1000)
    )
    assert one.size < SMALL < many.size


def test_output_of_any_strides(card):
    card()
    q, k, v = drawn(3, *[(3, 50, 32)] * 3)
    out = attended(q, k, v, aligned(np.zeros((50, 3, 32))).swapaxes(0, 1))[0]
    assert np.ascontiguousarray(out).tobytes() == clearhead.attention(q, k, v).tobytes()


def test_axes_of_size_1_have_any_strides(card):
    card()
    q, k, v = drawn(13, *[(1, 50, 32)] * 3)
    out, lse = aligned(np.zeros((1, 50, 32))), aligned(np.zeros((1, 50)))
    odd = OnCard(out, {"strides": (4, 128, 4)}), OnCard(lse, {"strides": (8, 4)})
    attend(OnCard(q, {"strides": (4, 128, 4)}), OnCard(k), OnCard(v), out=odd[0], lse=odd[1])
    assert out.tobytes() == clearhead.attention(q, k, v).tobytes()


def nowhere(*shape):
    """An empty array, as other libraries have it."""
    return OnCard(np.zeros(shape, np.float32), {"data": (0, False), "strides": None})


def test_nothing_to_compute(card):
    stand_in = card()
    q, k, v = (np.zeros((2, n, 32), np.float32) for n in (0, 5, 5))
    attended(q, k, v, mask=causal(align="end"))
    nothing = OnCard(np.zeros((0, 2, 5, 32), np.float32), {"data": (0, False), "strides": (0, 0, 0, 0)})  # as numpy's
    attend(nothing, nothing, nothing, out=nothing, lse=nowhere(0, 2, 5), score=clearhead.alibi(2))
    attend(*(nowhere(0, 4, 10, 32) for _ in "qkv"), out=nowhere(0, 4, 10, 32), lse=nowhere(0, 4, 10))
    assert not stand_in.launches


def test_no_keys(card):
    card()
    (q,) = drawn(14, (5, 32))
    out, lse = aligned(np.ones((5, 32))), aligned(np.zeros(5))
    attend(OnCard(q), nowhere(0, 32), nowhere(0, 32), out=OnCard(out), lse=OnCard(lse), mask=full())
    assert not out.any()
    assert (lse == -np.inf).all()


# What results may not be


@pytest.mark.parametrize("name", ["q", "k", "v"])
def test_results_apart_from_operands(card, name):
    """The kernel reads operands while it writes results."""
    card()
    operands = dict(zip("qkv", drawn(15, *[(300, 32)] * 3), strict=True))
    with pytest.raises(ShapeError, match=rf"out \(300, 32\) overlaps {name} \(300, 32\) in memory"):
        attended(**operands, out=operands[name])
    with pytest.raises(ShapeError, match=rf"lse \(300,\) overlaps {name} \(300, 32\) in memory"):
        attended(**operands, lse=operands[name].reshape(-1)[-300:])


def test_results_apart_from_each_other(card):
    card()
    both = aligned(np.zeros((310, 32)))
    with pytest.raises(ShapeError, match=r"out \(300, 32\) overlaps lse"):
        attended(*drawn(16, *[(300, 32)] * 3), out=both[:300], lse=both.reshape(-1)[9500:9800])


def test_an_output_between_rows_of_operands(card):
    """Its addresses lie among theirs, but it shares none."""
    card()
    packed = aligned(np.random.default_rng(17).standard_normal((70, 4, 32)))
    q, k, v, out = (packed[:, n] for n in range(4))
    expected = clearhead.attention(q, k, v)
    attended(q, k, v, out)
    assert np.ascontiguousarray(out).tobytes() == expected.tobytes()


def test_results_that_cannot_be_written(card):
    card()
    operands = drawn(18, *[(300, 32)] * 3)
    fixed = aligned(np.zeros((300, 32)))
    fixed.flags.writeable = False
    with pytest.raises(InputError, match=r"out of shape \(300, 32\) is read-only"):
        attended(*operands, out=fixed)
    with pytest.raises(InputError, match=r"lse of shape \(300,\) is read-only"):
        attended(*operands, lse=fixed.reshape(-1)[:300])
    one_row = np.lib.stride_tricks.as_strided(aligned(np.zeros((1, 32))), (300, 32), (0, 4))
    with pytest.raises(ShapeError, match="overlaps itself"):
        attended(*operands, out=one_row)
    assert not fixed.any()


# Cards and streams


def test_the_second_card(card):
    """The stand-in checks each launch's context and memory."""
    stand_in = card(cards=2)
    q, k, v, out = (stand_in.put(x, 1) for x in drawn(19, *[(10, 32)] * 4))
    lse = stand_in.put(aligned(np.zeros(10)), 1)
    attended(q, k, v, out, lse)
    assert out.tobytes() == clearhead.attention(q, k, v).tobytes()


@pytest.mark.parametrize("other", range(5))
def test_arrays_on_two_cards(card, other):
    stand_in = card(cards=2)
    arrays = [*drawn(20, *[(10, 32)] * 4), aligned(np.zeros(10))]
    stand_in.put(arrays[other], 1)
    with pytest.raises(InputError, match="the arrays are on cards 0, 1: copy them to one"):
        attended(*arrays)


def test_streams_that_write_the_arrays(card):
    stand_in = card()
    q, k, v, out = (OnCard(x) for x in drawn(21, *[(10, 32)] * 4))
    lse = OnCard(aligned(np.zeros(10)))
    attend(q, k, v, out=out, lse=lse)
    stand_in.called.clear()
    q.changes["stream"], k.changes["stream"], v.changes["stream"], out.changes["stream"] = 5, 7, 1, 5
    attend(q, k, v, out=out, lse=lse, stream=7)
    recorded = [call[1] for call in stand_in.called if call[0] == "record"]
    waited = [call[1] for call in stand_in.called if call[0] == "wait"]
    assert (recorded, waited) == ([1, 5], [7, 7])
    assert [call[0] for call in stand_in.called] == ["record", "wait", "destroy"] * 2 + ["launch"]
    stand_in.called.clear()
    attend(v, v, v, out=OnCard(out.array), lse=lse)
    assert [call[0] for call in stand_in.called] == ["launch"]  # stream 0 is 1


def test_the_first_use_within_a_cuda_graph(card):
    stand_in = card()
    q, k, v = drawn(22, *[(10, 32)] * 3)
    stand_in.capturing.add(9)
    with pytest.raises(MachineError, match="call once with this dim and these rules before the CUDA graph"):
        attended(q, k, v, stream=9)
    assert not stand_in.launches
    attended(q, k, v)
    attended(q, k, v, stream=9)
    assert stand_in.launches[-1][2] == 9


def test_no_traceback_reads_a_cards_memory():
    array = CardArray(16, Layout((2, 3), (12, 4), np.dtype(np.float32))).seen_from_here()
    assert repr(array) == f"{array}" == "<array of shape (2, 3), strides (12, 4) and float32 in a card's memory>"


def test_arrays_that_hide_their_memory(card):
    card()
    q, k, v = map(OnCard, drawn(23, *[(10, 32)] * 3))

    class Tracked:
        @property
        def __cuda_array_interface__(self):
            raise RuntimeError("it requires grad.")

        detach = None

    with pytest.raises(InputError, match=r"k hides its memory: it requires grad. Pass k.detach\(\)"):
        attend(q, Tracked(), v, out=q, lse=q)
    with pytest.raises(InputError, match="v has a mask of missing numbers"):
        attend(q, k, OnCard(v.array, {"mask": k}), out=q, lse=q)


# The self-test


def test_the_self_test_runs_once_in_a_process(card, tmp_path):
    """And in each: no file says that another driver or card of the same name was right."""
    q, k, v = drawn(4, *[(10, 32)] * 3)
    for _ in range(2):
        stand_in = card()
        for calls in (1, 2):
            attended(q, k, v)
            assert len(stand_in.launches) == len(list(confirmed.samples(32))) + calls
    assert not [path for path in tmp_path.iterdir() if "confirmed" in path.name]


def test_a_card_with_other_bits_is_refused(card):
    """Once for all calls of the process, and what was loaded is unloaded."""
    q, k, v = drawn(5, *[(10, 32)] * 3)
    stand_in = card(spoil=lambda ptx: ptx.replace("mul.rn.f32", "mul.f32").replace("add.rn.f32", "add.f32"))
    for _ in range(2):
        with pytest.raises(MachineError, match=r"does not give the CPU's bits in the self-test \(\d+ numbers differ\)"):
            attended(q, k, v)
    assert len(stand_in.launches) == len(list(confirmed.samples(32)))
    assert not stand_in.texts


def test_a_passing_refusal_is_not_remembered(card):
    stand_in = card(refuse={"cuMemAlloc_v2": 2})
    q, k, v = drawn(24, *[(10, 32)] * 3)
    with pytest.raises(MachineError, match="cuMemAlloc_v2 with error 2"):
        attended(q, k, v)
    assert not stand_in.texts
    stand_in.refuse.clear()
    assert attended(q, k, v)[0].tobytes() == clearhead.attention(q, k, v).tobytes()


class WrongEdge(StandIn):
    """One more key is visible where not all are."""

    def launch_kernel(self, function, *rest):
        places = rest[-2]
        keys, high = (ctypes.c_int.from_address(places[n]) for n in (6, 7))
        high.value += high.value < keys.value
        super().launch_kernel(function, *rest)


class WrongMerge(StandIn):
    """The last bit of one number is wrong where segments merge."""

    def launch_kernel(self, function, *rest):
        super().launch_kernel(function, *rest)
        places = rest[-2]
        if ctypes.c_int.from_address(places[6]).value > 2048:
            ctypes.c_int.from_address(ctypes.c_void_p.from_address(places[3]).value).value ^= 1


class Used(StandIn):
    """Memory is not empty; notes which results are not a number before a launch."""

    def mem_alloc_v2(self, out, size):
        super().mem_alloc_v2(out, size)
        ctypes.memset(out._obj.value, 0, size.value)

    def launch_kernel(self, function, *rest):
        results = [ctypes.c_void_p.from_address(rest[-2][n]).value for n in (3, 4)]
        self.called.append(tuple(np.isnan(ctypes.c_float.from_address(place).value) for place in results))
        super().launch_kernel(function, *rest)


@pytest.mark.parametrize("kind", [WrongEdge, WrongMerge])
def test_the_self_test_sees_edges_and_merges(card, kind):
    card(kind)
    with pytest.raises(MachineError, match="numbers differ"):
        attended(*drawn(25, *[(10, 32)] * 3))


def test_the_self_test_does_not_take_what_a_launch_left(card):
    stand_in = card(Used)
    confirmed.confirmed_kernel(driver.driver().card(0), "attention", 32)
    assert [call for call in stand_in.called if call[0] != "launch"] == [(True, True)] * len(stand_in.launches)


# What the kernel cannot do


def divided(score, batch, head, query, key):
    return score + query // (key - 3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mask": clearhead.documents([4, 6])}, "the documents are packed"),
        ({"score": divided}, "might read outside an array, divide by 0 or"),
        ({"score": [clearhead.softcap(30.0 + n) for n in range(300)]}, "more than 256 constants"),
    ],
    ids=["documents", "division", "many constants"],
)
def test_rules_that_only_the_cpu_knows(card, options, words):
    card()
    with pytest.raises(InputError, match=f"{words}.*: move the tensors to the CPU"):
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
    with pytest.raises(InputError, match="q is a list without __cuda_array_interface__, and without DLPack"):
        attend([1], k, v, out=k, lse=k)
    wide = OnCard(np.broadcast_to(q[:1], (1 << 30, 32)))
    with pytest.raises(InputError, match="too many"):
        attend(OnCard(q), wide, wide, out=out, lse=lse, mask=full())


@pytest.mark.parametrize("name", ["q", "k", "v", "out"])
def test_addresses(card, name):
    card()
    arrays = dict(zip(("q", "k", "v", "out"), drawn(26, *[(10, 32)] * 4), strict=True))
    arrays[name] = aligned(np.zeros((11, 32))).reshape(-1)[1:321].reshape(10, 32)
    with pytest.raises(InputError, match="an address is not a multiple of 16 bytes"):
        attended(**arrays)


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


@pytest.mark.parametrize("name", ["cuModuleGetFunction", "cuFuncSetAttribute"])
def test_a_kernel_that_cannot_be_used_is_unloaded(card, name):
    stand_in = card(refuse={name: 2})
    with pytest.raises(MachineError, match=f"refuses {name}"):
        attended(*drawn(29, *[(10, 32)] * 3))
    assert not stand_in.texts


def test_memory_that_cannot_be_freed(card):
    """A card that has failed refuses this, too, and nobody could do anything about it."""
    stand_in = card()
    memory = driver.Memory(driver.driver().card(0), 16)
    stand_in.refuse["cuMemFree_v2"] = 700
    memory.__del__()
    memory.address.value = None


def test_unknown_errors(card):
    card(refuse={"cuInit": 999, "cuGetErrorString": 1})
    with pytest.raises(MachineError, match="refuses cuInit with error 999: unknown error"):
        driver.driver()


def test_threads_share_one_driver(card, monkeypatch):
    stand_in = card()
    monkeypatch.setattr(driver, "library", lambda: time.sleep(0.05) or stand_in)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(driver.driver())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1


def test_threads_share_one_self_test(card):
    """Which holds up no other dim, and no call of a kernel that is known."""
    card()
    own = driver.driver().card(0)
    known = confirmed.confirmed_kernel(own, "attention", 32)
    other = own.locks.setdefault(("attention", 64, PLAIN_VARIANT), threading.RLock())
    with other, driver.opened.lock, driver.driver().lock:
        found: list[Any] = []
        again = partial(confirmed.confirmed_kernel, driver.driver().card(0), "attention", 32)
        thread = threading.Thread(target=lambda: found.append(again()))
        thread.start()
        thread.join(20)
    assert found == [known]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_opens_the_driver_anew(card):
    card()
    driver.driver()
    child = os.fork()
    if not child:
        os._exit(17 if driver.opened.driver is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 17
    card(refuse={"cuInit": 3})
    with pytest.raises(MachineError, match="start it by multiprocessing's 'spawn'"):
        driver.driver()
