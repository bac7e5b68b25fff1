"""The page of machine code shows what the generator makes: locations change no instruction, and each step has some."""

import re

import llvmlite.ir as ir
import pytest
from documentation.instruction_words import meaning_of
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
    assert instructions(assembled(text, target)) == instructions(assembled(str(plain), target))


def instructions(assembly: str) -> list[str]:
    """The instructions of some assembly, without comments and without numbers of labels."""
    found = re.findall(r"^\t([a-z][\w.]*(?:\t[^#/\n]*)?)", assembly, re.M)
    return [re.sub(r"\.L\w+|\s+$", "", line) for line in found]


@pytest.mark.parametrize("piece", PIECES.values(), ids=PIECES)
def test_every_step_is_shown_on_every_processor_and_in_words(piece) -> None:
    text = "\n".join(described(piece))
    listings = re.findall(r":::\{tab-item\} (\S+(?: IR)?)\n.*?```text\n(.*?)```", text, re.S)
    assert len(listings) == 4 * len(piece.steps)
    lines = [(name, line) for name, code in listings for line in code.splitlines() if not line.startswith("…")]
    wordless = [line for name, line in lines if not meaning_of(line.partition(";")[0], name)]
    assert len(wordless) < 0.05 * len(lines), wordless
