"""docs/walk.md shows real lines: each block of code stands in the file that it is said to be from."""

import re
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^`(clearhead/[\w/]+\.py)`:\n\n```python\n(.*?)\n```$", re.M | re.S)
BLOCKS = BLOCK.findall((ROOT / "docs/walk.md").read_text())


def stands_in(code: str, source: str) -> bool:
    """Whether lines stand in a source, one after the other, whatever their common indentation."""
    wanted, lines = code.split("\n"), source.split("\n")
    return any(dedent("\n".join(lines[at : at + len(wanted)])) == code for at in range(len(lines) - len(wanted) + 1))


def test_all_blocks_are_found():
    assert len(BLOCKS) == (ROOT / "docs/walk.md").read_text().count("```python") >= 8


@pytest.mark.parametrize(("path", "code"), BLOCKS)
def test_the_page_shows_the_code_as_it_is(path, code):
    source = (ROOT / path).read_text()
    assert stands_in(code, source)
    assert not stands_in(code + "\nunheard_of()", source)
