"""Windows and sinks on a GPU: the forward kernel that knows them, its PTX run on this processor."""

import functools
import re

import numpy as np
import pytest

from clearhead import causal, full, window
from clearhead.gpu.programs import Program
from clearhead.gpu.ptx import ptx
from clearhead.gpu.tile import CardTile
from tests.gpu.comparing import different, drawn, emulated, from_ptx
from tests.gpu.emulation import ORDERS, Emulated
from tests.gpu.translation import Translation

SMALL = CardTile(32, 32, 128)  # the quickest to compile
PARTED = CardTile(64, 32, 64)  # keys and values both in parts
TILES = [SMALL, PARTED, CardTile(96, 96, 128), CardTile(128, 64, 64)]
END = "end"
CASES = {  # queries, keys, leading axes of queries, of keys, mask, whether there is a sink
    "own": (70, 70, (), (), window(1, 0), False),
    "narrow": (150, 150, (2,), (2,), causal() & window(9, None), True),
    "across blocks": (300, 300, (), (), window(200, 130), False),
    "across segments": (65, 2200, (), (), causal(align=END) & window(2100, None, align=END), True),
    "far from the first key": (65, 4300, (1,), (1,), window(70, 3, align=END), False),
    "start": (100, 300, (), (), window(20, 40, align="start"), True),
    "left alone": (130, 260, (), (), window(100, None, align=END), False),
    "rows that see nothing": (200, 70, (2,), (2,), window(30, 10, align="start"), True),
    "full": (130, 300, (2, 3, 2), (2, 1, 2), full(), True),
    "causal": (129, 129, (2, 4), (2, 2), causal(), True),
    "no keys": (3, 0, (2,), (2,), full(), True),
}


@functools.cache
def kernel(tile: CardTile) -> Emulated:
    return from_ptx(Program("windowed", tile))


def sinks(lead):
    """One for each head; of all, one that counts, one that hardly does, and none at all."""
    numbers = np.resize(np.array([0.5, -30, 4, -np.inf], np.float32), lead)
    return numbers if lead else np.array(0.5, np.float32)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("tile", TILES, ids=str)
def test_windows_and_sinks_have_the_cpus_bits(tile, case):
    queries, keys, lead, key_lead, mask, sink = CASES[case]
    d = tile.dim
    q, k, v = drawn(queries, (*lead, queries, d), (*key_lead, keys, d), (*key_lead, keys, d))
    assert not different(kernel(tile), q, k, v, mask, sink=sinks(lead) if sink else None)


@pytest.mark.parametrize("special", ["nan", "hidden", "overflow"])
def test_special_numbers(special):
    """What a window hides is not even multiplied."""
    q, k, v = drawn(7, *[(2, 300, 32)] * 3)
    match special:
        case "nan":
            k[0, 150], v[0, 150], v[0, 290, 3], k[0, 299] = np.nan, np.inf, -np.inf, np.inf
        case "hidden":
            q[:], k[:, :140] = 1, -np.inf
        case "overflow":
            q *= np.float32(1e20)
            k *= np.float32(1e20)
    with np.errstate(all="ignore"):
        assert not different(kernel(SMALL), q, k, v, causal() & window(40, None), sink=sinks((2,)))


@pytest.mark.parametrize("order", ORDERS)
def test_threads_in_any_order(order):
    q, k, v = drawn(9, (70, 64), (2200, 64), (2200, 64))
    late = from_ptx(Program("windowed", PARTED), late=True)
    assert not different(late, q, k, v, window(2100, 3, align=END), order, np.array(1.0, np.float32))


BARRIER = re.compile(r"\tbar\.sync[^\n]*\n")


def barriers(tile):
    return list(BARRIER.finditer(ptx(Program("windowed", tile)).decode()))


def test_barriers_are_counted():
    assert len(barriers(SMALL)) == 7


@pytest.mark.parametrize("number", range(7))
def test_each_barrier_is_needed(number):
    """Without it, some order of threads gives other bits."""
    program = Program("windowed", SMALL)
    cut, text = barriers(SMALL)[number], ptx(program).decode()
    run = emulated(program, Translation(text[: cut.start()] + text[cut.end() :]).ir, late=False)
    q, k, v = drawn(10, (64, 32), (2304, 32), (2304, 32))
    assert any(disturbed(run, q, k, v, order) for order in ORDERS)


def disturbed(run: Emulated, q, k, v, order: str) -> bool:
    try:
        return bool(different(run, q, k, v, window(2300, None, align=END), order))
    except RuntimeError:  # some threads were done while others waited
        return True
