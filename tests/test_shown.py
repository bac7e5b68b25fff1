"""What README and docs show of the command line is what it prints: each ```console block is run.

A line "…" stands for any lines. Commands of one page share a folder, so that a file made by one is there for the next.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "clearhead/words/README.md"]
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
ANYTHING = "…"


def shown(page: Path) -> list[tuple[str, list[str]]]:
    """Each command of a page and the lines that are shown of its output."""
    commands: list[tuple[str, list[str]]] = []
    for block in BLOCK.findall(page.read_text("utf-8")):
        for line in block.splitlines():
            if line.startswith("$ "):
                commands.append((line[2:], []))
            else:
                commands[-1][1].append(line.rstrip())
    return commands


def agrees(printed: list[str], lines: list[str]) -> bool:
    """Whether lines with gaps are those that were printed."""
    pattern = "".join("(?:.*\n)*?" if line.strip() == ANYTHING else re.escape(line) + "\n" for line in lines)
    return re.fullmatch(pattern, "".join(f"{line.rstrip()}\n" for line in printed)) is not None


@pytest.mark.parametrize("page", [page for page in PAGES if shown(page)], ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_print_what_is_shown(page, tmp_path):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    python = f'clearhead() {{ "{sys.executable}" -m clearhead "$@"; }}; '
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80", "LC_ALL": "C.UTF-8"}
    for command, lines in shown(page):
        done = subprocess.run(
            ["bash", "-c", python + command],
            capture_output=True, text=True, cwd=tmp_path, env=environment, check=False, timeout=240,
        )  # fmt: skip
        printed = (done.stdout + done.stderr).splitlines()
        assert agrees(printed, lines), f"$ {command}\n" + "\n".join(printed)


def test_gaps_stand_for_any_lines_and_nothing_else_does():
    assert agrees(["a", "b", "c"], ["a", "…", "c"])
    assert agrees(["a", "c"], ["a", "…", "c"])
    assert not agrees(["a", "b", "c"], ["a", "c"])
    assert not agrees(["a", "b"], ["a", "…", "c"])


def test_readme_shows_the_command_line_and_names_the_command_that_tests():
    readme = (ROOT / "README.md").read_text("utf-8")
    assert shown(ROOT / "README.md")
    assert "\nscripts/test\n" in readme
    assert readme.count("\n") <= 90, "the README is one screen: what is more has a page in docs"
