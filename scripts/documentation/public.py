"""The names that tests/test_structure.py promises to keep, by module: what the reference has to have."""

import ast
from pathlib import Path

TESTS = Path(__file__).resolve().parents[2] / "tests" / "test_structure.py"


def promised() -> dict[str, list[str]]:
    """The table `PUBLIC`, read without running the tests.

    >>> "attention" in promised()["clearhead"]
    True
    """
    for node in ast.parse(TESTS.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "PUBLIC":
            table: dict[str, list[str]] = ast.literal_eval(node.value)
            return table
    raise LookupError(f"{TESTS} has no PUBLIC: say in documentation/public.py where the public names are now.")


PUBLIC = promised()
