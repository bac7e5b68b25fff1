"""docs/command-line.md names every command and every option."""

from pathlib import Path

import pytest
import typer.main

from clearhead.cli.command import app

PAGE = (Path(__file__).parents[2] / "docs/command-line.md").read_text("utf-8")
COMMANDS = vars(typer.main.get_command(app))["commands"]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_option_of_a_command_is_on_the_page(name):
    assert f"`clearhead {name}" in PAGE
    options = [option for parameter in COMMANDS[name].params for option in parameter.opts if option.startswith("--")]
    assert [option for option in options if f"`{option}" not in PAGE and option not in ("--help", "--browser")] == []
