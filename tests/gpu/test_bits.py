"""A GPU's kernels give the CPU's bits: their IR and their PTX, run on this processor."""

import functools
import re

import numpy as np
import pytest

from clearhead import causal, full
from clearhead.gpu.programs import Program
from clearhead.gpu.tile import TILES, CardTile
from tests.gpu.comparing import aligned, different, drawn, from_ir, from_ptx, host_ir
from tests.gpu.emulation import ORDERS, Emulated

NAMES = [tile.name for tile in TILES]
SMALL = CardTile(32, 32, 128)  # the quickest to compile
PARTED = CardTile(64, 32, 64)  # keys and values both in parts
WIDE = CardTile(96, 96, 128), CardTile(128, 64, 64)
CASES = {  # queries, keys, leading axes of queries, of keys, mask
    "one": (1, 1, (), (), causal()),
    "a tile": (64, 64, (), (), causal()),
    "an edge": (129, 129, (2, 4), (2, 2), causal()),
    "the last queries": (70, 2200, (1,), (1,), causal(align="end")),
    "the first queries": (100, 300, (), (), causal(align="start")),
    "rows that see nothing": (200, 70, (), (), causal(align="end")),
    "full": (130, 300, (2, 3, 2), (2, 1, 2), full()),
    "no keys": (3, 0, (2,), (2,), full()),
}


def plain(tile: CardTile) -> Program:
    return Program("attention", tile)


@functools.cache
def kernel(tile: CardTile) -> Emulated:
    return from_ptx(plain(tile))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("tile", TILES, ids=NAMES)
def test_ptx_gives_the_cpus_bits(tile, case):
    queries, keys, lead, key_lead, mask = CASES[case]
    d = tile.dim
    q, k, v = drawn(queries, (*lead, queries, d), (*key_lead, keys, d), (*key_lead, keys, d))
    assert not different(kernel(tile), q, k, v, mask)


@pytest.mark.parametrize("tile", [SMALL, CardTile(64, 64, 128), PARTED], ids=str)
def test_ir_gives_the_cpus_bits(tile):
    q, k, v = drawn(5, *[(2, 300, tile.dim)] * 3)
    assert not different(from_ir(plain(tile)), q, k, v, causal())


@pytest.mark.parametrize("special", ["nan", "hidden", "overflow", "large", "tiny", "zeros"])
@pytest.mark.parametrize("tile", [SMALL, CardTile(64, 64, 128)], ids=str)
def test_special_numbers(tile, special):
    q, k, v = drawn(7, *[(300, tile.dim)] * 3)
    match special:
        case "nan":
            k[150], v[150], v[290, 3], k[299] = np.nan, np.inf, -np.inf, np.inf
        case "hidden":
            q[:], k[:140] = 1, -np.inf
        case "overflow":
            q *= np.float32(1e20)
            k *= np.float32(1e20)
        case "large":
            q *= 40
            k *= 40
        case "tiny":
            q *= np.float32(2.0**-70)
            k *= np.float32(2.0**-70)
            v *= np.float32(2.0**-140)
        case "zeros":
            v[:], v[::3] = -0.0, -1e-45
    with np.errstate(all="ignore"):
        assert not different(kernel(tile), q, k, v, causal())


def test_strides():
    """Rows of one head lie apart, as layers of frameworks have them; and one key serves all batches."""
    q, k, v = (x.swapaxes(-2, -3) for x in drawn(8, *[(2, 150, 4, 64)] * 3))
    assert not different(kernel(CardTile(64, 64, 128)), q, k, v, causal())
    k = np.broadcast_to(k[:1], k.shape)
    assert not different(kernel(CardTile(64, 64, 128)), q, k, v, causal())


# No thread may depend on another's pace, and no copy on when it arrives


@pytest.mark.parametrize("late", [False, True], ids=["copies at once", "late copies"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("tile", [SMALL, PARTED, *WIDE], ids=str)
def test_threads_in_any_order(tile, order, late):
    q, k, v = drawn(9, (70, tile.dim), (2200, tile.dim), (2200, tile.dim))
    run = from_ptx(plain(tile), late=late) if late else kernel(tile)
    assert not different(run, q, k, v, causal(align="end"), order)


BARRIER = 'call void @"host_barrier"()'
BARRIERS = {SMALL: 7, PARTED: 11, WIDE[0]: 7, WIDE[1]: 11}


def without_barrier(ir: str, number: int) -> str:
    """The program without one of its barriers."""
    start = [found.start() for found in re.finditer(re.escape(BARRIER), ir)][number]
    return ir[:start] + ir[start + len(BARRIER) :]


@functools.cache
def program(tile: CardTile) -> str:
    return host_ir(plain(tile))


def test_barriers_are_counted():
    assert {tile: program(tile).count(BARRIER) for tile in BARRIERS} == BARRIERS


@pytest.mark.parametrize(("tile", "number"), [(tile, n) for tile, count in BARRIERS.items() for n in range(count)])
def test_each_barrier_is_needed(tile, number):
    """Without it, some order of threads or pace of copies gives other bits."""
    q, k, v = drawn(10, (64, tile.dim), (2304, tile.dim), (2304, tile.dim))
    ir = without_barrier(program(tile), number)
    paces = [(late, order) for late in (False, True) for order in ORDERS]
    assert any(disturbed(from_ir(plain(tile), ir, late=late), q, k, v, order) for late, order in paces)


def disturbed(run: Emulated, q, k, v, order: str) -> bool:
    try:
        return bool(different(run, q, k, v, full(), order))
    except RuntimeError:  # some threads were done while others waited
        return True


def test_contraction_is_noticed():
    """A compiler that joins a product and a sum would be seen, in rows whose LSE is a logarithm near 0."""
    q, k = np.zeros((4096, 32), np.float32), np.zeros((2, 32), np.float32)
    q[:, 0], k[1, 0] = np.random.default_rng(0).uniform(4, 28, len(q)), -1
    q, k, v = aligned(q), aligned(k), aligned(np.ones((2, 32), np.float32))
    ir = program(SMALL)
    assert not different(from_ir(plain(SMALL), ir), q, k, v, full())
    ir = ir.replace("= fmul ", "= fmul contract ").replace("= fadd ", "= fadd contract ")
    assert different(from_ir(plain(SMALL), ir), q, k, v, full())
