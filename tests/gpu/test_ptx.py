"""What the PTX may contain, and what NVIDIA's assembler makes of it where that is installed (torch brings it)."""

import importlib.util
import re
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from clearhead import alibi, bias, full, softcap, where
from clearhead.engine.inputs import Operands, Rules
from clearhead.engine.problem import problem_of
from clearhead.gpu.card_rules import card_rules
from clearhead.gpu.programs import KINDS, Program
from clearhead.gpu.ptx import ptx
from clearhead.gpu.tile import HALF, TILES, CardTile, tile_for
from clearhead.rules.functions import gelu

NAMES = [tile.name for tile in TILES]
FLOATS = {  # rounded to nearest, none contracted, none flushed to zero, none approximate
    "fma.rn.f32", "mul.rn.f32", "add.rn.f32", "sub.rn.f32", "div.rn.f32", "rcp.rn.f32", "max.f32", "selp.f32",
    "cvt.rn.f32.s32", "setp.lt.f32", "setp.nan.f32", "setp.eq.f32", "setp.gt.f32",
    "setp.neu.f32", "setp.leu.f32", "abs.f32",
}  # fmt: skip


FLOATS_OF_RULES = FLOATS | {"neg.f32", "cvt.rn.f32.f64"}
DOUBLES = {  # of functions that are computed in float64 and rounded once
    "fma.rn.f64", "mul.rn.f64", "add.rn.f64", "sub.rn.f64", "div.rn.f64", "rcp.rn.f64", "cvt.f64.f32", "selp.f64",
    "setp.lt.f64", "setp.gt.f64", "neg.f64", "abs.f64",
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tile", TILES, ids=NAMES)
def test_floats_are_rounded_to_nearest(tile, kind):
    assert floats_of(Program(kind, tile)) <= FLOATS


def floats_of(program: Program) -> set[str]:
    """The float operations of a kernel."""
    text = ptx(program).decode()
    used = set(re.findall(r"^\s*(?:@!?%p\d+\s+)?([a-z]\S*)", text, re.M))
    floats = {op for op in used if re.search(r"\.b?f(16|32|64)", op) and not op.startswith(("ld.", "st.", "mov."))}
    assert "fma.rn.f32" in floats
    assert ".target sm_80" in text
    assert not re.search(r"\.(ftz|approx|sat)\b", text)
    return floats


def ruled(kind: str, tile: CardTile, score: object, mask: object) -> Program:
    """A kernel with rules."""
    x = np.zeros((2, 9, 32), np.float32)
    return Program(kind, tile, card_rules(problem_of(Operands(x, x, x), Rules(mask, score))).variant)


def near_or_first(batch, head, query, key):
    return (query // 4 == key // 4) | (key < 2)


RULES = {  # score and mask; products, sums and multiply-adds of a score, five of them of softcap's division
    "alibi": (alibi(2), full(), (1, 1, 0)),
    "softcap": (softcap(2.0), full(), (4, 7, 16)),
    "table and mask": (bias(np.zeros((9, 9), np.float32)), where(near_or_first), (0, 1, 0)),
}
WITH_RULES = [kind for kind in KINDS if kind != "attention"]


@pytest.mark.parametrize("kind", WITH_RULES)
def test_floats_of_rules_are_rounded_to_nearest(kind):
    for score, mask, _ in RULES.values():
        assert floats_of(ruled(kind, TILES[1], score, mask)) <= FLOATS_OF_RULES
    found = floats_of(ruled(kind, TILES[1], lambda score, batch, head, query, key: gelu(score), full()))
    assert found <= FLOATS_OF_RULES | DOUBLES
    assert "fma.rn.f64" in found


@pytest.mark.parametrize(
    ("group_bytes", "processor_bytes", "tiles"),
    [(232448, 233472, (0, 1, 4, 5)), (166912, 167936, (0, 2, 3, 5)), (101376, 102400, (0, 1, 4, 6))],
    ids=["H100", "A100", "RTX"],
)
def test_the_tile_is_chosen_by_shared_memory(group_bytes, processor_bytes, tiles):
    """Two groups on a multiprocessor where they fit; one on cards for games."""
    assert [tile_for(dim, group_bytes, processor_bytes) for dim in (32, 64, 96, 128)] == [TILES[n] for n in tiles]


def test_no_tile():
    assert tile_for(64, 40000, 102400) is None
    assert tile_for(40, 232448, 233472) is None


def toolkit() -> Path | None:
    """The folder of ptxas and nvdisasm in torch's triton."""
    found = importlib.util.find_spec("triton")
    folder = Path(found.origin).parent / "backends/nvidia/bin" if found and found.origin else None
    return folder if folder and (folder / "ptxas").exists() and (folder / "nvdisasm").exists() else None


TOOLKIT = toolkit()


def assembled(program: Program, card: str, folder: Path) -> tuple[str, list[str]]:
    """The assembler's remarks, and the machine's instructions: names, and labels as `label:`; jumps with theirs."""
    assert TOOLKIT
    text, code = folder / "kernel.ptx", folder / "kernel.cubin"
    text.write_bytes(ptx(program))
    made = subprocess.run([TOOLKIT / "ptxas", f"-arch={card}", "-v", "-o", code, text], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    shown = subprocess.run([TOOLKIT / "nvdisasm", "-c", code], capture_output=True, text=True, check=True).stdout
    found = re.findall(r"^(\.L_x_\d+:)|/\*[0-9a-f]+\*/\s+(?:@!?U?P[T\d]+\s+)?([A-Z][A-Z0-9_.]*)(.*)", shown, re.M)
    lines = []
    for label, name, rest in found:
        target = re.search(r"\.L_x_\d+", rest) if name.startswith("BRA") else None
        lines.append(label or (f"BRA {target[0]}" if target else name))
    return made.stderr, lines


def inner_loops(lines: list[str]) -> list[Counter[str]]:
    """The instructions of each loop that has no other in it."""
    labels = {line[:-1]: n for n, line in enumerate(lines) if line.endswith(":")}
    jumps = [(labels[line.split()[1]], n) for n, line in enumerate(lines) if line.startswith("BRA ")]
    spans = sorted({(start, end) for start, end in jumps if start < end})
    inner = [a for a in spans if not any(a[0] <= b[0] and b[1] <= a[1] for b in spans if b != a)]
    return [Counter(line for line in lines[start:end] if not line.endswith(":")) for start, end in inner]


@pytest.mark.skipif(TOOLKIT is None, reason="no ptxas and nvdisasm: torch's triton brings them")
@pytest.mark.parametrize(
    ("tile", "card"), [(TILES[1], "sm_80"), (TILES[2], "sm_86"), (TILES[1], "sm_90"), (TILES[5], "sm_90")], ids=str
)
def test_machine_code_keeps_every_operation(tile, card, tmp_path):
    """No spills; an exponential has 8 multiply-adds, 3 additions and 1 product: none of them was contracted."""
    remarks, lines = assembled(Program("attention", tile), card, tmp_path)
    assert "0 bytes spill stores, 0 bytes spill loads" in remarks
    assert not [x for x in lines if x.startswith(("HMMA", "FFMA.FTZ", "MUFU.EX2", "MUFU.LG2"))]
    loops = inner_loops(lines)
    weights = [loop for loop in loops if loop["FMUL"]]
    assert weights
    assert all((loop["FFMA"], loop["FADD"]) == (8 * loop["FMUL"], 3 * loop["FMUL"]) for loop in weights)
    sums = [loop for loop in loops if loop["FFMA"] >= 128 and not loop["FMUL"]]
    assert len(sums) >= 3  # scores, values, values at the edge
    assert all(not loop["FADD"] for loop in sums)
    assert min(sum(loop.values()) / loop["FFMA"] for loop in sums) < 1.1


OTHERS = [("windowed", 8, 3), ("weights", 8, 2), ("numbers", 10, 5), ("received", 8, 2), ("pooled", 8, 2)]


@pytest.mark.skipif(TOOLKIT is None, reason="no ptxas and nvdisasm: torch's triton brings them")
@pytest.mark.parametrize(("kind", "fused", "added"), OTHERS)
def test_machine_code_of_the_other_kernels(kind, fused, added, tmp_path):
    """No spills; beside an exponential, numbers have two more multiply-adds and three more additions than weights."""
    remarks, lines = assembled(Program(kind, TILES[1]), "sm_90", tmp_path)
    assert "0 bytes spill stores, 0 bytes spill loads" in remarks
    weights = [loop for loop in inner_loops(lines) if loop["FMUL"]]
    assert weights
    assert all((loop["FFMA"], loop["FADD"]) == (fused * loop["FMUL"], added * loop["FMUL"]) for loop in weights)


@pytest.mark.skipif(TOOLKIT is None, reason="no ptxas and nvdisasm: torch's triton brings them")
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("kind", "tile", "card"),
    [
        *((kind, TILES[1], "sm_90") for kind in WITH_RULES),
        ("windowed", TILES[2], "sm_86"),
        ("windowed", TILES[5], "sm_80"),
    ],
    ids=str,
)
def test_machine_code_of_rules(rule, kind, tile, card, tmp_path):
    """No spills; a rule's products and sums are those of the program, and so are an exponential's."""
    score, mask, (products, sums, fused) = RULES[rule]
    remarks, lines = assembled(ruled(kind, tile, score, mask), card, tmp_path)
    assert "0 bytes spill stores, 0 bytes spill loads" in remarks
    found = [(loop["FMUL"], loop["FADD"], loop["FFMA"]) for loop in inner_loops(lines)]
    assert any((products * n, sums * n, fused * n) in found for n in range(4, HALF + 1, 4))
    if kind != "picture":
        of_exp = {"windowed": (3, 8), "numbers": (5, 10)}.get(kind, (2, 8))
        assert any((n, of_exp[0] * n, of_exp[1] * n) in found for n in range(4, HALF + 1, 4))
