"""The page of machine code shows what the generator makes: locations change no instruction, and each step has some."""

import re

import llvmlite.ir as ir
import pytest
from documentation.machine_code import TARGETS, assembled, narrow, written
from documentation.pieces_of_code import PIECES, described


@pytest.mark.parametrize("piece", PIECES.values(), ids=PIECES)
@pytest.mark.parametrize("name", TARGETS)
def test_locations_change_no_instruction(piece, name) -> None:
    target = TARGETS[name]
    text, lines = written(piece, target)
    plain = ir.Module(piece.name)
    piece.write(plain, narrow(target))
    assert {number for number in lines if number > 1}
    (entry, loops), (plain_entry, plain_loops) = (parts(assembled(x, target)) for x in (text, str(plain)))
    assert loops == plain_loops
    assert sorted(entry) == sorted(plain_entry)  # what is saved on the stack may be saved a little earlier


def parts(assembly: str) -> tuple[list[str], list[str]]:
    """The instructions before the first label and after it, without comments and without numbers of labels."""
    entry, _, loops = re.sub(r"\.Ltmp\d+:", "", assembly).partition("\n.LBB")
    return instructions(entry), instructions(loops)


def instructions(assembly: str) -> list[str]:
    """The instructions of some assembly."""
    found = re.findall(r"^\t([a-z][\w.]*(?:\t[^\n]*)?)$", assembly, re.M)
    return [re.sub(r"\.L\w+|\s*(//|#\s|## ).*$|\s+$", "", line) for line in found]


@pytest.mark.parametrize("piece", PIECES.values(), ids=PIECES)
def test_every_step_is_shown_on_every_processor_and_in_words(piece) -> None:
    text = "\n".join(described(piece))
    listings = re.findall(r":::\{tab-item\} (\S+(?: IR)?)\n.*?```text\n(.*?)```", text, re.S)
    assert len(listings) == 4 * len(piece.steps)
    lines = [line for _, code in listings for line in code.splitlines() if not line.startswith("…")]
    wordless = [line for line in lines if line.startswith(" ")]
    assert len(wordless) < 0.05 * len(lines), wordless
