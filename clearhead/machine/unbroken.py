"""Late imports and compilations that a fork or interpreter exit cannot interrupt.

A forked child has only the thread that forked. If another thread was in the middle of an import or held a lock of LLVM,
that never ends in the child, and waiting for it hangs. So a fork first waits until other threads have finished such
work. Interpreter exit waits too, since it would unload LLVM while they use it.

A signal handler, a finalizer or a garbage collection callback can call attention while its thread is in the middle of
an import, where waiting would not help. So late imports run in a separate thread.

This module is imported first. Where the command starts, Ctrl-C ends it without a traceback until `cli.main` takes over.
"""

import atexit
import functools
import gc
import importlib
import itertools
import os
import signal
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


def starts_command() -> bool:
    """Whether Python was started as `clearhead` or `python -m clearhead`, and imports this package for it."""
    script = os.path.splitext(os.path.basename(sys.argv[0]))[0] if getattr(sys, "argv", None) else ""
    return script == PACKAGE or (script == "-m" and ("-m", PACKAGE) in itertools.pairwise(sys.orig_argv))


if starts_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

compiling, importing = threading.RLock(), threading.RLock()
locks: list[AbstractContextManager[object]] = [compiling, importing]  # taken in this order; `target` adds LLVM's
held_locks = ExitStack()


@functools.cache
def late(name: str) -> Any:
    """Import a module on first use.

    >>> late("json").dumps([1])
    '[1]'
    """
    if importing_here():  # no other thread can import meanwhile
        return importlib.import_module(name)
    while True:
        outcome: list[ModuleType | BaseException] = []
        done = allocate_lock()
        done.acquire()
        process = os.getpid()
        try:
            start_new_thread(fetch, (name, outcome, done))
        except RuntimeError:  # the system's limit, or the interpreter is exiting
            fetch(name, outcome, done)
        while not done.acquire(timeout=0.1) and os.getpid() == process:
            pass
        for module in outcome:  # empty in a child that was forked before the thread began: try again
            if isinstance(module, BaseException):
                raise module
            return module


def importing_here() -> bool:
    """Whether this thread seems to be in the middle of an import; other threads hold the lock only for microseconds.

    Python does not say which thread holds the lock, and an import inside the bookkeeping of another would break it.
    """
    for _ in range(PATIENCE):
        if not lock_held():
            return False
        time.sleep(1e-3)
    return True


def fetch(name: str, outcome: list[ModuleType | BaseException], done: LockType) -> None:
    """Import a module with the garbage collector paused, since its callbacks could import it too."""
    try:
        with importing, collector_paused():
            outcome.append(importlib.import_module(name))
    except BaseException as error:
        outcome.append(error)
    finally:
        done.release()


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause the garbage collector in a `with` block."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def settle() -> None:
    """Wait until no other thread imports or compiles, and keep others from starting."""
    if PACKAGE in sys.modules:  # Python holds the package's lock until its import ends, in a child for ever
        importlib.import_module(PACKAGE)
    for lock in locks:
        held_locks.enter_context(lock)


def resume() -> None:
    """Allow imports and compilations again."""
    held_locks.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=settle, after_in_parent=resume, after_in_child=resume)
atexit.register(compiling.acquire)  # not `importing`: exit handlers may still import
