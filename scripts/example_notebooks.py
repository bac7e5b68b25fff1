#!/usr/bin/env python
"""Run the notebooks of examples/notebooks and save them with what they print and show.

    python scripts/example_notebooks.py [lesson …]

Needs clearhead[test]. tests/notebook/test_examples.py runs them too, and compares what they print with what is saved.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # importing them takes seconds, in every process that collects the tests
    from nbformat import NotebookNode

FOLDER = Path(__file__).parents[1] / "examples/notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
PATIENCE = 300  # seconds a cell may take
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def read(name: str) -> "NotebookNode":
    """A notebook as it is saved."""
    import nbformat

    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def run(notebook: "NotebookNode") -> "NotebookNode":
    """Run a notebook in its folder, with a kernel of its own; it then holds all that is printed and shown."""
    import nbformat
    from nbclient import NotebookClient

    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL})
    client = NotebookClient(
        notebook, timeout=PATIENCE, kernel_name="python3", record_timing=False,
        resources={"metadata": {"path": str(FOLDER)}},
    )  # fmt: skip
    return client.execute()


def printed(notebook: "NotebookNode") -> list[str]:
    """What each cell of code prints and, as text, shows."""
    return [
        "".join(
            output.text if output.output_type == "stream" else output.get("data", {}).get("text/plain", "")
            for output in cell.outputs
            if output.get("name") != "stderr"
        )
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


if __name__ == "__main__":
    import nbformat

    for name in sys.argv[1:] or NAMES:
        nbformat.write(run(read(name)), FOLDER / f"{name}.ipynb")
        size = (FOLDER / f"{name}.ipynb").stat().st_size
        print(f"{name}: {size / 1000:.0f} kB")
