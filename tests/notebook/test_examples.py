"""The notebooks of examples/notebooks print what is saved in them, and are small."""

import copy
import re

import example_notebooks
import pytest

MOST_BYTES = 400_000
NAMES = ["eviction", "lesson", "researcher"]


def test_all_of_them_are_here() -> None:
    assert example_notebooks.NAMES == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_prints_what_is_saved(name: str) -> None:
    saved = example_notebooks.read(name)
    again = copy.deepcopy(saved)
    for cell in again.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    found = example_notebooks.printed(example_notebooks.run(again))
    assert any(re.search(r"\d", text) for text in found)
    assert found == example_notebooks.printed(saved)


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_notebook_shows_its_widgets_and_is_small(name: str) -> None:
    saved = example_notebooks.read(name)
    state = saved.metadata.widgets["application/vnd.jupyter.widget-state+json"].state
    shown = [
        output.data["application/vnd.jupyter.widget-view+json"].model_id
        for cell in saved.cells
        for output in cell.get("outputs", [])
        if "application/vnd.jupyter.widget-view+json" in output.get("data", {})
    ]
    assert shown
    for widget in shown:
        assert state[widget].state.page in state
    text = (example_notebooks.FOLDER / f"{name}.ipynb").read_text("utf-8")
    assert len(text.encode()) <= MOST_BYTES
    assert not re.search(r'"(/tmp|/work|/home|/root)', text)
    assert "Traceback" not in text
