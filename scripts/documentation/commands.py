"""The directive `commands`: every command of clearhead, its arguments and options, from the parser that reads them."""

from collections.abc import Iterator
from typing import Any

import typer
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from clearhead.cli.command import app as command_line


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class Commands(SphinxDirective):
    """A section for each command."""

    def run(self) -> list[nodes.Node]:
        """The sections, parsed from Markdown."""
        return self.parse_text_to_nodes("\n".join(described()), allow_section_headings=True)


def described() -> Iterator[str]:
    """All commands in Markdown."""
    group: Any = typer.main.get_command(command_line)
    context = typer.Context(group, info_name="clearhead")
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if not command.hidden:
            yield from described_command(command, typer.Context(command, info_name=name, parent=context))


def described_command(command: Any, context: typer.Context) -> Iterator[str]:
    """One command: what it does, its usage, and what each argument and option means."""
    yield f"## {command.name}\n\n{literal(command.help)}\n"
    yield f"```console\n$ clearhead {command.name} {' '.join(command.collect_usage_pieces(context))}\n```\n"
    for kind in ("argument", "option"):
        records = [
            record
            for parameter in command.get_params(context)
            if parameter.param_type_name == kind and (record := parameter.get_help_record(context))
        ]
        if records:
            yield f"| {kind} | |\n|---|---|"
            yield from (f"| `{cell(name)}` | {literal(cell(meaning))} |" for name, meaning in records)
            yield ""


def cell(text: str) -> str:
    """Text within a table."""
    return " ".join(text.split()).replace("|", "\\|")


def literal(text: str) -> str:
    """Help texts are plain: nothing in them is Markdown."""
    for character in "*_<":
        text = text.replace(character, f"\\{character}")
    return text
