"""What is never met half done: imports that come late, and compilations.

A forked child has the forking thread alone. What another thread was at, a module half imported, a lock of LLVM's, stays
as it was for ever, and whoever waits for it hangs. So a fork waits until other threads have done with such things, and
so does the end of the interpreter, which would take LLVM from under them.

A signal handler, a finalizer or a callback of the garbage collector may call attention in the middle of an import of
its own thread, where waiting would not help: so late imports are made by a thread of their own.
"""

import atexit
import functools
import gc
import importlib
import os
import sys
import threading
import time
from _imp import lock_held
from _thread import LockType, allocate_lock, start_new_thread
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import ModuleType
from typing import Any

PACKAGE = __name__.partition(".")[0]
PATIENCE = 50  # milliseconds
compiling, importing = threading.RLock(), threading.RLock()
locks: list[AbstractContextManager[object]] = [compiling, importing]  # taken in this order; LLVM's joins them
held = ExitStack()


@functools.cache
def late(name: str) -> Any:
    """A module that is imported when it is first wanted.

    >>> late("json").dumps([1])
    '[1]'
    """
    if importing_here():  # then no other thread can import
        return importlib.import_module(name)
    while True:
        outcome: list[ModuleType | BaseException] = []
        done = allocate_lock()
        done.acquire()
        process = os.getpid()
        try:
            start_new_thread(fetch, (name, outcome, done))
        except RuntimeError:  # there can be no more threads: the system's limit, or the interpreter is ending
            fetch(name, outcome, done)
        while not done.acquire(timeout=0.1) and os.getpid() == process:
            pass
        for found in outcome:  # none in a child that was forked before the thread had begun: start another
            if isinstance(found, BaseException):
                raise found
            return found


def importing_here() -> bool:
    """Whether this very thread seems to be in the middle of an import: other threads hold its lock for microseconds.

    Python does not say whose the lock is, and an import within another one's bookkeeping would break it.
    """
    for _ in range(PATIENCE):
        if not lock_held():
            return False
        time.sleep(1e-3)
    return True


def fetch(name: str, outcome: list[ModuleType | BaseException], done: LockType) -> None:
    """Import a module without being interrupted by the garbage collector, whose callbacks could want it too."""
    try:
        with importing, collector_paused():
            outcome.append(importlib.import_module(name))
    except BaseException as error:
        outcome.append(error)
    finally:
        done.release()


@contextmanager
def collector_paused() -> Iterator[None]:
    """Leave the garbage collector out of a `with` block."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def settle() -> None:
    """Wait until no other thread imports or compiles, and let none begin."""
    if PACKAGE in sys.modules:  # Python holds its own lock on it until after its last line, in a child for ever
        importlib.import_module(PACKAGE)
    for lock in locks:
        held.enter_context(lock)


def go_on() -> None:
    """Let them."""
    held.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=settle, after_in_parent=go_on, after_in_child=go_on)
atexit.register(compiling.acquire)  # not `importing`: what runs at the end may still import
