"""Widgets in a real marimo and a real JupyterLab, in a real browser, with and without a kernel."""

import base64
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import example_notebooks
import numpy as np
from playwright.sync_api import FrameLocator, expect

import clearhead.model
from clearhead.explain import explain
from clearhead.notebook import Read, frame
from clearhead.view.sentences import sentence_vectors
from tests.notebook.conftest import Shown
from tests.view.printed import share

TEXT = "The river was wide. The river"
LAYER, HEAD = 3, 3
SLOW = 180_000  # milliseconds that a server and its kernel may take at first
READ = f"Read({TEXT!r}, layer={LAYER}, head={HEAD})"
MARIMO = f"""import marimo
app = marimo.App()

@app.cell
def _():
    from clearhead.notebook import Learn, Read
    lesson = Learn("the river bank")
    lesson
    return (Read,)

@app.cell
def _(Read):
    {READ}
    return

@app.cell
def _():
    from clearhead.explain import explain
    explain([[1, 0], [0, 1]])
    return
"""


def triangle(widget: FrameLocator, row: int) -> list[str]:
    """What Learn prints in a row of the triangle."""
    return widget.locator(".tri .trow:not(.hrow)").nth(row).locator(".c").all_inner_texts()


def weights_of(text: str, row: int) -> list[str]:
    """What it must print, by the definition: the vectors on the page are those of two axes."""
    told = sentence_vectors(text)
    return [share(weight) for weight in explain(told["plane"], told["tokens"], position=row).weights]


def sentence_typed(widget: FrameLocator, text: str) -> None:
    field = widget.locator("#sentence")
    field.fill(text)
    field.press("Enter")


def heaviest(row: int) -> list[str]:
    """The tokens that a query of the small model reads most, by the definition of its weights."""
    model = clearhead.model.load()
    done = model.forward(model.tokenizer.encode(TEXT))
    weights = np.asarray(done.layers[LAYER].weights)[HEAD, row]
    names = model.tokenizer.names(done.tokens)
    return [names[j].strip() for j in np.argsort(-weights, kind="stable")[:2]]


def listed(widget: FrameLocator, count: int) -> list[str]:
    """The tokens that Read lists first."""
    return [text.strip() for text in widget.locator(".mass li .in b").all_inner_texts()[:count]]


def is_dark(widget: FrameLocator) -> bool:
    return widget.locator("html").get_attribute("data-theme", timeout=SLOW) == "dark"


def follow(shown: Shown, learn: int, read: int) -> None:
    """Learn and Read show the right numbers, and ask the kernel for what the reader chooses."""
    lesson, reading = shown.widget(learn), shown.widget(read)
    lesson.locator(".tri").wait_for(timeout=SLOW)
    assert triangle(lesson, 2) == weights_of("the river bank", 2)
    sentence_typed(lesson, "the dog bit the man")
    expect(lesson.locator(".tri .trow:not(.hrow)")).to_have_count(5, timeout=SLOW)
    assert triangle(lesson, 4) == weights_of("the dog bit the man", 4)
    sentence_typed(lesson, "!")
    expect(lesson.locator("body")).to_contain_text("There is no word")
    lesson.locator("summary", has_text="Export").click()
    with shown.page.expect_download() as saving:
        lesson.get_by_role("menuitem", name="This page as one file").click()
    written = saving.value.path().read_text("utf-8")
    assert "the dog bit the man" in written
    assert '"framed"' not in written

    reading.locator(".mass li").first.wait_for(timeout=SLOW)
    assert listed(reading, 2) == heaviest(10)
    reading.get_by_role("listbox").first.press("ArrowLeft")
    expect(reading.get_by_role("region", name="What is shown")).to_contain_text("row 9")
    expect(reading.locator(".mass li .in b").first).to_contain_text(heaviest(9)[0])
    assert listed(reading, 2) == heaviest(9)


def test_marimo(shown: Shown, marimo: Callable[[str], Any]) -> None:
    with marimo(MARIMO) as address:
        shown.page.goto(address)
        follow(shown, 0, 1)
        explained = shown.widget(2)
        expect(explained.locator("#qz")).to_contain_text("at right angles", timeout=SLOW)
        assert not is_dark(explained)
        shown.page.goto("about:blank")  # before its server ends


def test_jupyterlab(shown: Shown, jupyter: Callable[..., Any]) -> None:
    import nbformat  # takes two seconds, in every process that collects the tests

    cells = ["from clearhead.notebook import Learn, Read\nLearn('the river bank')", READ]
    live = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in cells], metadata={"kernelspec": example_notebooks.KERNEL}
    )
    saved = example_notebooks.read("researcher")
    page = shown.page
    with jupyter({"live": live, "saved": saved}, dark=True) as address:
        # opened and not run: the kernel knows nothing of what is saved
        page.goto(address.replace("/api", "/lab/tree/saved.ipynb?reset"))
        kept = shown.widget(1)
        expect(kept.locator(".mass li").first).to_contain_text(re.compile(r"89\.1\s%"), timeout=SLOW)
        assert is_dark(kept)
        kept.get_by_role("listbox").first.press("ArrowLeft")
        expect(kept.locator("body")).to_contain_text("No kernel answers", timeout=SLOW)
        expect(kept.locator(".mass li").first).to_contain_text(re.compile(r"89\.1\s%"))

        page.goto(address.replace("/api", "/lab/tree/live.ipynb?reset"))
        page.get_by_text("Learn('the river bank')").first.wait_for(timeout=SLOW)
        page.get_by_text("| Idle").wait_for(timeout=SLOW)  # until its kernel is there, JupyterLab runs no cell
        page.get_by_role("menuitem", name="Run", exact=True).click(timeout=SLOW)
        page.get_by_text("Run All Cells", exact=True).click()
        follow(shown, 0, 1)
        page.goto("about:blank")  # before its server ends


def test_where_there_are_no_widgets_the_page_holds_its_first_answers(shown: Shown) -> None:
    reading = Read(TEXT, layer=LAYER, head=HEAD)
    shown.page.set_content(reading._repr_mimebundle_()[0]["text/html"])
    page = shown.widget(0)
    page.locator(".mass li").first.wait_for(timeout=SLOW)
    assert listed(page, 2) == heaviest(10)
    expect(page.get_by_role("region", name="What is shown")).to_contain_text("row 10")
    assert heaviest(10)[0] in shown.page.locator("table").inner_text()


KERNEL = """async ({ source, packed, kept }) => { // a kernel that answers nothing but what a test says
  const bytes = (text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  const told = { title: 'clearhead', height: 700, page: 'shared', kept: bytes(kept) };
  const listeners = [];
  const model = {
    get: (name) => told[name],
    on: (_, listener) => listeners.push(listener),
    off: () => {},
    send(content) {
      window.sent.push(content);
      const { ask, what } = content;
      if (ask && what !== 'ask/line') setTimeout(window.say, 0, { answered: ask, error: 'Not now.' });
    },
    widget_manager: { get_model: async () => ({ get: () => bytes(packed) }) },
  };
  window.sent = [];
  window.say = (content) => listeners.forEach((listener) => listener(content, []));
  const { default: widget } = await import(URL.createObjectURL(new Blob([source], { type: 'text/javascript' })));
  const shown = widget.render({ model, el: document.body });
  window.say({ here: window.sent[0].greet });
  await shown;
}"""


def rows_asked(shown: Shown) -> list[int]:
    """The rows that the kernel was asked for, in order."""
    asked = shown.page.evaluate("window.sent.filter(({ what }) => what === 'ask/line')")
    return [question["about"]["at"] for question in asked]


def test_what_is_left_before_its_turn_is_not_asked(shown: Shown) -> None:
    reading = Read(TEXT, layer=LAYER, head=HEAD)
    shown.page.evaluate(KERNEL, {
        "source": Path(frame.__file__).with_name("static").joinpath("widget.js").read_text("utf-8"),
        "packed": base64.b64encode(reading.shared.packed).decode(), "kept": base64.b64encode(reading.kept).decode(),
    })  # fmt: skip
    page = shown.widget(0)
    text = page.get_by_role("listbox").first
    text.wait_for(timeout=SLOW)
    for _ in range(4):  # the first is asked; the kernel has begun and takes its time
        text.press("ArrowLeft")
        shown.page.wait_for_timeout(60)
        shown.page.evaluate("window.sent.filter(({ ask }) => ask).forEach(({ ask }) => window.say({ begun: ask }))")
    assert rows_asked(shown) == [9]
    first = shown.page.evaluate("window.sent.find(({ what }) => what === 'ask/line').ask")
    shown.page.evaluate("window.say", {"answered": first, "error": "Too late."})
    shown.page.wait_for_function("window.sent.filter(({ what }) => what === 'ask/line').length > 1")
    assert rows_asked(shown)[:2] == [9, 6]
    expect(page.locator("body")).to_contain_text("No kernel answers", timeout=SLOW)  # it has not begun this one
