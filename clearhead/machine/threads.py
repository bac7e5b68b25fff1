"""Threads that share one call: each takes tiles from the call's own queue until none is left.

Decides who runs and who waits; which thread computes a tile changes no bit. The calling thread works too, in slices of
a few milliseconds, so that Ctrl-C is seen between them: it empties the queue, waits for the others, and is raised.
"""

import ctypes
import os
import threading
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TypeAlias

import numpy as np

from clearhead import settings
from clearhead.errors import InputError
from clearhead.kernels.call import FIELDS
from clearhead.machine.compile import Entry

NEXT_TASK, TASKS = FIELDS.index("next_task"), FIELDS.index("tasks")
Table: TypeAlias = "ctypes.Array[ctypes.c_int64]"
WHOLE = 1 << 62  # a budget that never ends
SLICE = {
    "avx512": 1 << 29,
    "avx2": 1 << 28,
    "neon": 1 << 27,
    "generic": 1 << 20,
}  # multiply-adds: some milliseconds
WORTH_A_THREAD = 1 << 22  # multiply-adds, some 30 µs: waking a thread takes half of that


def allowed() -> int:
    """How many threads a call may use: CLEARHEAD_THREADS, else every core this process may run on."""
    text = settings.THREADS.read()
    if not text.isdecimal():
        raise InputError(f"CLEARHEAD_THREADS={text} is not a number of threads: use 0 for every core, or 1, 2, 3 …")
    if int(text):
        return int(text)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Scratch(threading.local):
    """Each thread's working memory, kept between calls and grown when a call needs more."""

    def __init__(self) -> None:
        self.size, self.address = 0, 0
        self.memory = np.empty(0, np.uint8)

    def of(self, size: int) -> int:
        """The address of at least `size` bytes, aligned to a cache line."""
        if size > self.size:
            self.memory = np.empty(size + 64, np.uint8)
            self.address = (self.memory.ctypes.data + 63) & ~63
            self.size = size
        return self.address


scratch = Scratch()


@dataclass
class Job:
    """One call as the other threads see it: they may join until the caller closes it."""

    entry: Entry
    table: Table
    scratch_size: int
    arrays: tuple[object, ...]  # memory the kernel reads and writes: it must outlive the last thread
    done: "SimpleQueue[BaseException | None]" = field(default_factory=SimpleQueue)
    lock: threading.Lock = field(default_factory=threading.Lock)
    joined: int = 0
    closed: bool = False

    def work(self) -> None:
        """Take tiles until none is left, and report; a closed job is left alone."""
        with self.lock:
            if self.closed:
                return
            self.joined += 1
        try:
            self.entry(self.table, scratch.of(self.scratch_size), WHOLE)
            self.done.put(None)
        except BaseException as error:
            self.done.put(error)

    def close(self) -> None:
        """Let nobody else join or start a tile, and wait for those at work."""
        with self.lock:
            self.closed = True
        self.table[NEXT_TASK] = self.table[TASKS]
        for failure in [self.done.get() for _ in range(self.joined)]:
            if failure is not None:
                raise failure


class Crew:
    """The threads beside the caller's own, started when first needed; a forked child starts its own."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin without threads, as a process does."""
        self.jobs: SimpleQueue[Job] = SimpleQueue()
        self.started = 0
        self.starting = threading.Lock()

    def call(self, job: Job, others: int) -> None:
        """Hand a job to `others` threads."""
        with self.starting:
            while self.started < others:
                threading.Thread(target=self.serve, args=(self.jobs,), daemon=True, name="clearhead").start()
                self.started += 1
        for _ in range(others):
            self.jobs.put(job)

    @staticmethod
    def serve(jobs: "SimpleQueue[Job]") -> None:
        """Work on whatever comes."""
        while True:
            jobs.get().work()


crew = Crew()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=crew.forget)


def run_kernel(
    entry: Entry, table: Table, scratch_size: int, threads: int, isa: str, arrays: tuple[object, ...]
) -> None:
    """Run one call to its end on `threads` threads, this one included."""
    address, budget = scratch.of(scratch_size), SLICE[isa]
    if threads == 1:
        while entry(table, address, budget):
            pass
        return
    job = Job(entry, table, scratch_size, arrays)
    crew.call(job, threads - 1)
    try:
        while entry(table, address, budget):
            pass
    finally:
        job.close()
