"""The one line that the command prints for an error: what is wrong, and what to give instead."""

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


def report_error(message: str) -> int:
    """Print an error on one line of standard error; returns the exit code."""
    print("clearhead:", " ".join(message.split()), file=sys.stderr)
    return 2
