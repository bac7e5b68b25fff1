"""Widgets without a browser: what they carry, what they answer, and what they show where there are no widgets."""

import json
import re
import struct
import zlib
from types import SimpleNamespace
from typing import Any

import IPython
import numpy as np
import pytest

import clearhead
from clearhead import displayed
from clearhead.errors import InputError
from clearhead.explain import explain
from clearhead.notebook import Learn, Read, results
from clearhead.notebook.read import MOST_PAIRS
from clearhead.reading.kept import question
from clearhead.view import page
from clearhead.wording import percent

WIDGET = "application/vnd.jupyter.widget-view+json"
HOSTILE = "</script><script>alert(1)</script>"


def asked(widget: Any, monkeypatch: pytest.MonkeyPatch, what: str, about: Any) -> list[tuple[dict[str, Any], Any]]:
    """What the kernel sends when the page asks."""
    sent: list[tuple[dict[str, Any], Any]] = []
    monkeypatch.setattr(widget, "send", lambda content, buffers=None: sent.append((content, buffers)))
    widget._handle_custom_msg({"ask": "a/1", "what": what, "about": about}, [])
    return sent


def kept(widget: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(zlib.decompress(widget.kept))
    return found


@pytest.fixture
def x() -> Any:
    return np.random.default_rng(5).standard_normal((3, 9, 4)).astype(np.float32)


def test_a_question_is_begun_and_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    lesson = Learn("the river bank")
    begun, (told, [body]) = asked(lesson, monkeypatch, "ask/sentence", {"text": "water"})
    assert begun == ({"begun": "a/1"}, None)
    assert told == {"answered": "a/1", "type": "application/json"}
    assert json.loads(body)["tokens"] == ["water"]


def test_numbers_come_as_the_server_sends_them(monkeypatch: pytest.MonkeyPatch, x: Any) -> None:
    w = clearhead.weights(x, x)
    about = {"reading": 0, "part": "attention", "layer": 0, "heads": [1], "join": "one", "measure": "weight"}
    about |= {"by": "row", "at": 6, "without": False, "from": 0}
    _, (told, [body]) = asked(Read(w), monkeypatch, "ask/line", about)
    assert told["type"] == "application/octet-stream"
    size = struct.unpack("<I", body[:4])[0]
    assert np.array_equal(np.frombuffer(body[4 + size :], "<f4"), w[1].row(6))


@pytest.mark.parametrize(("what", "about", "said"), [
    ("ask/sentence", {"text": "!"}, "There is no word"), ("ask/nothing", {}, "is not a known question"),
    ("file", {"state": ""}, "run the cell again"), ("ask/sentence", {"text": "a " * 2000}, "at most 2000"),
])  # fmt: skip
def test_what_cannot_be_answered_says_why(monkeypatch: pytest.MonkeyPatch, what: str, about: Any, said: str) -> None:
    *_, (told, buffers) = asked(Learn("water"), monkeypatch, what, about)
    assert said in told["error"]
    assert buffers is None


def test_a_fault_is_told_and_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    lesson = Learn("water")
    monkeypatch.setattr(lesson, "body", lambda what, about: 1 / 0)
    sent: list[Any] = []
    monkeypatch.setattr(lesson, "send", lambda content, buffers=None: sent.append(content))
    with pytest.raises(ZeroDivisionError):
        lesson._asked(None, {"ask": "a/1", "what": "ask/sentence", "about": {}}, [])
    assert "division by zero" in sent[-1]["error"]


def test_a_greeting_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    lesson, sent = Learn("water"), []
    monkeypatch.setattr(lesson, "send", lambda content, buffers=None: sent.append(content))
    lesson._handle_custom_msg({"greet": "a"}, [])
    assert sent == [{"here": "a"}]


@pytest.mark.parametrize("content", [{}, {"ask": "a/1"}, {"ask": "a/1", "what": "ask/sentence", "about": [1]}])
def test_messages_that_are_no_questions_are_left_alone(monkeypatch: pytest.MonkeyPatch, content: Any) -> None:
    lesson = Learn("water")
    monkeypatch.setattr(lesson, "send", pytest.fail)
    lesson._asked(None, content, [])


def test_the_page_is_a_file_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {question("sentence", {"text": HOSTILE}): {"tokens": [HOSTILE]}}
    _, (told, [body]) = asked(
        Learn("water"), monkeypatch, "file", {"screen": "learn", "known": known, "state": "row=0"}
    )
    assert told["type"] == "text/html"
    assert body.decode() == page.single_file(page.LEARN, known, "row=0")
    assert body.count(b"<script") == 2
    assert b"alert(1)</script>" not in body


def test_widgets_of_one_screen_share_the_page(x: Any) -> None:
    one, two, read = Learn("water"), Learn("fire"), Read(clearhead.weights(x, x))
    assert one.page == two.page != read.page
    assert len(one.kept) < 20_000
    assert zlib.decompress(one.shared.packed).decode() == page.frame(page.LEARN)
    one.shared.close()
    assert Learn("water").page != one.page


def test_a_widget_holds_its_first_answers(x: Any) -> None:
    w = clearhead.weights(x, x)
    read = Read(w, tokens=list("abcdefghi"), head=2, row=-2)
    told = kept(read)
    assert told["state"] == "reading=0&layer=0&heads=2&row=7"
    kinds = {name.split()[0] for name in told["known"]}
    assert kinds == {"readings", "names", "line", "trust", "sheet", "tile", "pair", "heaviest"}
    [line] = [answer for name, answer in told["known"].items() if name.startswith("line ")]
    assert line["at"] == 7
    assert kept(Learn("water"))["state"] == "text=water&step=0"


def test_a_long_row_is_all_that_is_computed() -> None:
    x = np.random.default_rng(1).standard_normal((1, 6000, 8)).astype(np.float32)
    assert x.shape[1] ** 2 > MOST_PAIRS
    kinds = {name.split()[0] for name in kept(Read(clearhead.weights(x, x)))["known"]}
    assert kinds == {"readings", "names", "line", "trust"}


def test_two_sources_stand_side_by_side(x: Any) -> None:
    read = Read(clearhead.weights(x, x), clearhead.weights(2 * x, x), names=("before", "after"), head=1)
    assert [reading.name for reading in read.reader.readings] == ["before", "after"]
    assert read.state == "panes=2&reading=0&layer=0&heads=1&row=8&reading2=1&layer2=0&heads2=1&row2=8"
    assert sum(name.startswith("line ") for name in read.known) == 2


@pytest.mark.parametrize(("make", "said"), [
    (lambda w: Read(), "nothing to show"), (lambda w: Read(w, names=("a", "b")), "do not name 1 sources"),
    (lambda w: Read(w, layer=3), "no layer 3"), (lambda w: Read(w, head=3), "no head 3"),
    (lambda w: Read(w, row=9), "row is 9: give a query from -9 to 8"), (lambda w: Read(w, row=-10), "row is -10"),
    (lambda w: Read(w, tokens=["a"]), "1 tokens do not name"), (lambda w: Read(3), "this is int, not weights"),
    (lambda w: Read(w, height=10), "height is 10"), (lambda w: Learn("!"), "There is no word"),
])  # fmt: skip
def test_what_cannot_be_shown_says_why(x: Any, make: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        make(clearhead.weights(x, x))


def test_without_widgets_there_is_a_page_and_a_table(x: Any) -> None:
    w = clearhead.weights(x, x)
    names = [HOSTILE, *"bcdefghi"]
    text = Read(w, tokens=names, row=1)._repr_mimebundle_()[0]["text/html"]
    frame, _, plain = text.partition("</iframe>")
    assert 'sandbox="allow-scripts allow-downloads"' in frame
    assert "<script" not in text.replace(frame, "")
    assert "&lt;/script&gt;" in plain
    assert re.findall(r"[\d.]+ %", plain) == [percent(share) for share in sorted(w[0].row(1)[:2], reverse=True)]
    assert "Head 0.0" in plain


# Results that display themselves


@pytest.fixture
def jupyter(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a kernel of Jupyter's."""
    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(kernel=object()))


@pytest.mark.usefixtures("jupyter")
def test_results_display_themselves_by_a_widget(x: Any) -> None:
    q = x[None]
    for result in (clearhead.weights(x, x), clearhead.attend(x, x, x), clearhead.attend(q, q, q).weights):
        assert list(result._repr_mimebundle_()) == [WIDGET]
        assert isinstance(result._display_(), Read)
    e = explain("water from the river")
    assert list(e._repr_mimebundle_()) == [WIDGET]
    assert isinstance(e._display_(), Learn)


@pytest.mark.usefixtures("jupyter")
def test_without_anywidget_results_display_what_they_have(monkeypatch: pytest.MonkeyPatch, x: Any) -> None:
    monkeypatch.setattr(clearhead, "find_spec", lambda name: None)
    w = clearhead.weights(x, x)
    assert w._repr_mimebundle_() == {}
    assert w._display_()._repr_html_() == w._repr_html_()
    assert clearhead.attend(x, x, x)._display_()._repr_html_() is None


def test_a_terminal_gets_no_widget(monkeypatch: pytest.MonkeyPatch, x: Any) -> None:
    monkeypatch.setattr(IPython, "get_ipython", SimpleNamespace)
    monkeypatch.setattr(displayed, "widget_of", pytest.fail)
    assert clearhead.weights(x, x)._repr_mimebundle_() == {}


def test_a_result_that_no_screen_can_show_has_no_widget() -> None:
    part = clearhead.attend(np.eye(2), np.eye(2), np.eye(2))
    for result in (clearhead.Watch(0), clearhead.merge(part, part), 3):
        assert results.widget_of(result) is None


@pytest.mark.parametrize(("e", "shown"), [
    (explain("the river bank", position="river"), "text=the+river+bank&step=0&axes=all&row=1"),
    (explain([[0.1, 1e-7], [0, 3]], ["a", "b &"]), "vectors=0.1%2C1e-07%3B0.0%2C3.0&name=a&name=b+%26&row=1&step=0"),
    (explain([[1.0], [2.0]]), None), (explain(np.eye(9)), None), (explain(np.ones((13, 2))), None),
    (explain([[1, 0]], keys=[[1, 0]], values=[[1, 0]]), None), (explain([[1, 0]], scale=0.5), None),
    (explain([[1, 0], [1, 1]], mask=clearhead.window(0)), None),
    (explain([[1, 0]], score=clearhead.softcap(3.0)), None), (explain("a b c d e f g h i j k l m"), None),
])  # fmt: skip
def test_explanations_open_in_learn_where_it_shows_them_whole(e: Any, shown: str | None) -> None:
    lesson = results.widget_of(e)
    assert (None if lesson is None else lesson.state) == shown
