"""The one line that the command prints for an error: what is wrong, and what to give instead."""

import re
import sys
from typing import Any


def usage_fault(error: Any) -> str:
    """What is wrong with an argument and what to give instead, where typer would print its parser's message."""
    cause = getattr(error.__cause__, "errors", None)
    if cause is None:
        return str(error.format_message()).rstrip(".")
    fault = cause()[0]
    if fault["type"] == "value_error":
        return f"'{error.param.opts[0]}': {fault['ctx']['error']}".rstrip(".")
    cures = {
        "int_parsing": "a whole number",
        "float_parsing": "a number",
        "greater_than_equal": "{ge} or more",
        "less_than_equal": "{le} or less",
    }
    cure = cures.get(fault["type"], "another value").format(**fault.get("ctx", {}))
    return f"{str(fault['input'])[:40]} cannot be used for '{error.param.opts[0]}': give {cure}"


OPTIONS = re.compile(r"(?:^|(?<=: )|(?<=say )|(?<=or )|(?<=give ))(threads|scale|align)=['\"]?([^\s'\"]+)['\"]?")
IN_PYTHON = ", as by & window(None, None, align='end')"  # a way that the command does not have


def as_options(message: str) -> str:
    """A message with the options that were typed in place of Python's arguments.

    >>> as_options("threads=0 is not a number of threads: use 1, 2, 3 … or None for the default.")
    '--threads 0 is not a number of threads: use 1, 2, 3 … or leave it out for the default.'
    >>> as_options("y.npy exists already: choose another name, or replace it with force=True.")
    'y.npy exists already: choose another name, or replace it with --force.'
    >>> as_options("causal() is ambiguous for 2 queries and 3 keys: give it align='end' if they are the last ones.")
    'causal() is ambiguous for 2 queries and 3 keys: give --align end if they are the last ones.'
    """
    message = OPTIONS.sub(r"--\1 \2", message.replace("give it align", "give align").replace(IN_PYTHON, ""))
    return message.replace("or None for", "or leave it out for").replace("force=True", "--force")


def report_error(message: str) -> int:
    """Print an error on one line of standard error, without what would command a terminal; returns the exit code."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(message.split()))
    print("clearhead:", shown, file=sys.stderr)
    return 2
