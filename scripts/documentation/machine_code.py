"""What the generator makes of some lines of the definition, instruction by instruction.

While an emitter runs, each instruction that it appends is given the emitter's own line as its debug location. LLVM
carries locations down to the assembly, so that every instruction there names the line that asked for it, and, by the
steps below, the equation of the definition that the line computes.
"""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import llvmlite.ir as ir

from clearhead.kernels.abi.tiles import F32, Tile
from clearhead.kernels.parts import scores
from clearhead.machine.compile import initialise, machine_for
from clearhead.machine.target import AARCH64, Target

KERNELS = Path(scores.__file__).parents[1]
TARGETS = {
    "AVX-512": Target("avx512", "x86_64-unknown-linux-gnu", "x86-64-v4", "", 512, 32),
    "AVX2": Target("avx2", "x86_64-unknown-linux-gnu", "x86-64-v3", "", 256, 16),
    "AArch64": AARCH64,
}


@dataclass(frozen=True)
class Step:
    """One equation: where the definition has it, and by which words the emitters' lines for it are known."""

    meaning: str
    definition: str  # the line of the definition, as it stands there
    emitters: tuple[str, ...]  # texts, one of which is in the emitter's line


@dataclass(frozen=True)
class Piece:
    """A part of the scalar program, and the emitter of its machine code."""

    name: str
    definition: str  # the function, as module:name
    emitter: str
    write: Callable[[ir.Module, Tile], Any]
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Instruction:
    """A line of code, and the emitter's line that it comes from."""

    text: str
    origin: str


def narrow(target: Target) -> Tile:
    """A tile of one key and one vector of queries at a time: the least that shows everything."""
    return Tile(F32, target.vector_bits, 4, keys=(1, 1, 1, 1), rows=(1,))


class Located:
    """The debug locations of a module: one for each line of an emitter."""

    def __init__(self, module: ir.Module) -> None:
        self.module, self.lines, self.function = module, dict[int, str](), None
        self.file = module.add_debug_info("DIFile", {"filename": "emitter", "directory": ""})
        self.unit = module.add_debug_info(
            "DICompileUnit",
            {"language": ir.DIToken("DW_LANG_Python"), "file": self.file, "isOptimized": True, "runtimeVersion": 0,
             "emissionKind": ir.DIToken("LineTablesOnly")},
            is_distinct=True,
        )  # fmt: skip
        module.add_named_metadata("llvm.dbg.cu", self.unit)
        flag = [ir.Constant(ir.IntType(32), 2), "Debug Info Version", ir.Constant(ir.IntType(32), 3)]
        module.add_named_metadata("llvm.module.flags", module.add_metadata(flag))

    def location(self, function: ir.Function) -> Any:
        """Where the emitter stands now."""
        number, text = emitter_line()
        self.lines[number] = text
        scope = function.metadata.get("dbg")
        if scope is None:
            flags = ir.DIToken("DISPFlagDefinition")
            of = {"name": function.name, "file": self.file, "line": 1, "unit": self.unit, "spFlags": flags}
            scope = self.module.add_debug_info("DISubprogram", of, is_distinct=True)
            function.set_metadata("dbg", scope)
        return self.module.add_debug_info("DILocation", {"line": number, "column": 1, "scope": scope})


def emitter_line() -> tuple[int, str]:
    """A number and the text of the innermost line, among those that run, of the kernels' own emitters."""
    frame = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(KERNELS) and (path.parent.name == "parts" or path.name == "math.py"):
            known = SOURCES.setdefault(path.name, path.read_text("utf-8").splitlines())
            return number_of(path.name, frame.f_lineno), known[frame.f_lineno - 1].strip()
        frame = frame.f_back  # type: ignore[assignment]
    return 1, ""


SOURCES: dict[str, list[str]] = {}
FILES: list[str] = []


def number_of(file: str, line: int) -> int:
    """A line number for a line of one of several files."""
    if file not in FILES:
        FILES.append(file)
    return 10_000 * (FILES.index(file) + 1) + line


@contextmanager
def located(module: ir.Module) -> Iterator[Located]:
    """Give each instruction that is appended within the block the line of the emitter that runs."""
    where, insert = Located(module), ir.IRBuilder._insert

    def insert_located(self: ir.IRBuilder, instruction: Any) -> None:
        instruction.metadata.setdefault("dbg", where.location(self.function))
        insert(self, instruction)

    ir.IRBuilder._insert = insert_located
    try:
        yield where
    finally:
        ir.IRBuilder._insert = insert


def written(piece: Piece, target: Target) -> tuple[str, dict[int, str]]:
    """The IR of a piece, each instruction with its location, and the emitters' lines by number."""
    module = ir.Module(piece.name)
    with located(module) as where:
        piece.write(module, narrow(target))
    return str(module), where.lines


def assembled(text: str, target: Target) -> str:
    """The assembly of some IR."""
    initialise(target.triple)
    module = llvm.parse_assembly(text)
    module.triple = target.triple
    module.verify()
    return str(machine_for(target).emit_assembly(module))


def ir_blocks(text: str, lines: dict[int, str]) -> list[list[Instruction]]:
    """The instructions of some IR, basic block by basic block."""
    places = {found[1]: int(found[2]) for found in re.finditer(r"^(![0-9]+) = !DILocation\(.*?line: (\d+)", text, re.M)}
    blocks: list[list[Instruction]] = []
    origin = ""
    for line in text[text.index("define") :].splitlines():
        if re.match(r"[\w.]+:$", line):
            blocks.append([])
        elif found := re.match(r"  (\S.*?)\s*(?:, !dbg (![0-9]+))?$", line):
            origin = lines.get(places[found[2]], "") if found[2] else origin  # llvmlite writes some without
            blocks[-1].append(Instruction(readable(found[1]), origin))
    return blocks


def readable(instruction: str) -> str:
    """An instruction of the IR without quotes, and with constants written once."""
    text = re.sub(r'%"\.?([^"]*)"', r"%\1", instruction).replace('"', "")
    text = re.sub(r"<(?:(?:float|i32) undef(?:, )?)+>", "undef", text)
    text = re.sub(r"<(?:i32 0(?:, )?)+>", "0", text)
    text = re.sub(r"<((?:float|i32)\s+\S+?)(?:, \1)+>", r"splat (\1)", text)
    return " ".join(text.split())


def assembly_blocks(text: str, lines: dict[int, str]) -> list[list[Instruction]]:
    """The instructions of some assembly, from label to label."""
    blocks: list[list[Instruction]] = [[]]
    place = 0
    for line in text.splitlines():
        if found := re.match(r"\s*\.loc\s+\d+\s+(\d+)", line):
            place = int(found[1])
        elif re.match(r"\.?L\w+:", line):
            blocks.append([])
        elif found := re.match(r"\t([a-z]\w+(?:\.\w+)?)(?:\t(.*?))?\s*(?:(?:#|//) .*)?$", line):
            blocks[-1].append(Instruction(f"{found[1]:<13} {found[2] or ''}".rstrip(), lines.get(place, "")))
    return blocks
