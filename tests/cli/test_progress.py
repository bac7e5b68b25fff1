"""What is said of a long run: how much is done, and a time left that does not jump."""

import os
import re
import time
from contextlib import suppress

import pytest

from clearhead.cli.progress import Pace, bar


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_time_left_is_known_after_the_first_step(clock):
    pace = Pace("pairs", 1000, 0)
    assert str(pace) == "0 % of 1000 pairs"
    clock[0] += 10
    pace.advance(100)
    assert str(pace) == "10 % of 1000 pairs, 1 min 30 s left"


def test_what_an_earlier_process_did_says_nothing_of_the_pace_of_this_one(clock):
    pace = Pace("pairs", 1000, 900)
    clock[0] += 10
    pace.advance(20)
    assert str(pace) == "92 % of 1000 pairs, 40 s left"


def test_one_slow_step_hardly_moves_the_time_left(clock):
    pace = Pace("pairs", 10_000, 0)
    for _ in range(50):
        clock[0] += 1
        pace.advance(100)
    assert pace.left == 50
    clock[0] += 5
    pace.advance(100)
    assert 49 < pace.left < 54


def test_a_log_gets_a_line_a_minute(clock, capsys):
    with bar("pairs", 1000) as advance:
        for _ in range(100):
            clock[0] += 2
            advance(10)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "clearhead: 30 % of 1000 pairs, 2 min 20 s left",
        "clearhead: 60 % of 1000 pairs, 1 min 20 s left",
        "clearhead: 90 % of 1000 pairs, 20 s left",
    ]


def test_a_quiet_run_says_nothing(clock, capsys):
    with bar("pairs", 1000, quiet=True) as advance:
        clock[0] += 1000
        advance(10)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("total", [0, 1000])
def test_a_terminal_shows_a_bar_from_what_is_done(monkeypatch, total):
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr("sys.stderr", terminal)
        patch.setenv("TERM", "xterm")
        with bar("pairs", total, total // 2) as advance:
            advance(total // 4)
    read = b""
    with suppress(OSError):  # what Linux answers at the end
        while more := os.read(ours, 1 << 16):
            read += more
    os.close(ours)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", read.decode())
    assert f"{50 if total else 100} % of {total} pairs" in shown
    assert f"{75 if total else 100} % of {total} pairs" in shown
