"""What is worked out once is kept without a lock, everywhere."""

import re
import threading
from pathlib import Path

import clearhead
from clearhead.once import cached_property


class Slow:
    """A property whose first answer waits."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()

    @cached_property
    def answer(self) -> object:
        """Something new each time."""
        self.begun.set()
        self.go_on.wait(10)
        return object()


def test_the_first_answer_stays():
    slow = Slow()
    slow.go_on.set()
    assert slow.answer is slow.answer


def test_nobody_waits_for_another_thread():
    first, second = Slow(), Slow()
    thread = threading.Thread(target=lambda: first.answer)
    thread.start()
    assert first.begun.wait(10)
    second.go_on.set()
    assert second.answer is second.answer
    first.go_on.set()
    thread.join()


def test_no_module_uses_the_one_that_locks():
    package = Path(clearhead.__file__).parent
    locking = re.compile(r"functools\.cached_property|from functools import .*\bcached_property")
    users = [
        path for path in package.rglob("*.py") if path.name != "once.py" and locking.search(path.read_text("utf-8"))
    ]
    assert users == []
