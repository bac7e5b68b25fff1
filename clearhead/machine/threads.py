"""Threads that share one call: each takes tiles from the call's own queue until none is left.

Decides who runs and who waits; which thread computes a tile changes no bit. The calling thread works too, in slices of
a few milliseconds, so that Ctrl-C is seen between them: it empties the queue, waits for the others, and is raised.

Between two slices, and wherever else Python may run a signal handler, a finalizer or a callback of the garbage
collector, another call may begin in the same thread. So scratch memory belongs to one call until it ends, and no lock
is held while something else is waited for.
"""

import ctypes
import os
import threading
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from clearhead import settings
from clearhead.errors import InputError, MachineError
from clearhead.kernels.abi.call import FIELDS
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


class Memory(NamedTuple):
    """Where one thread works on one call: `size` bytes from `address` on, in `array`."""

    size: int
    address: int
    array: npt.NDArray[np.uint8]


spare = threading.local()  # its `memory`: what this thread's last call worked in


def take(size: int) -> Memory:
    """Working memory of at least `size` bytes from a cache line on, the caller's alone until it is put back.

    Taking is one step, so that whoever comes between finds the memory there or gone.
    """
    memory: Memory | None = spare.__dict__.pop("memory", None)
    if memory is None or memory.size < size:
        array = np.empty(size + 64, np.uint8)
        memory = Memory(size, (array.ctypes.data + 63) & ~63, array)
    return memory


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
            memory = take(self.scratch_size)
            self.entry(self.table, memory.address, WHOLE)
            spare.memory = memory
            self.done.put(None)
        except BaseException as error:
            self.done.put(error)

    def close(self) -> None:
        """Let nobody else join or start a tile, and wait for those at work, whatever interrupts the waiting."""
        failures: list[BaseException | None] = []
        interrupt: BaseException | None = None
        while not self.closed or len(failures) < self.joined:
            try:
                with self.lock:
                    self.closed = True
                self.table[NEXT_TASK] = self.table[TASKS]
                while len(failures) < self.joined:
                    failures.append(self.done.get())
            except BaseException as error:  # another Ctrl-C
                interrupt = error
        for failure in (interrupt, *failures):
            if failure is not None:
                raise failure

    def cut(self) -> None:
        """End it in a forked child: what the threads that had joined were at is lost."""
        self.lock = threading.Lock()
        if self.joined:
            self.table[NEXT_TASK] = self.table[TASKS]
        for _ in range(self.joined):
            lost = "this process was forked in the middle of a call and has none of the threads that shared it"
            self.done.put(MachineError(f"{lost}: call again, or with threads=1 where a signal handler forks."))


class Crew:
    """The threads beside the caller's own, started when first needed; a forked child starts its own."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Be without threads, as a process is at first."""
        self.jobs: SimpleQueue[Job] = SimpleQueue()
        self.under_way: list[Job] = []
        self.started = 0
        self.starting = threading.Lock()

    def forget(self) -> None:
        """Begin anew in a forked child; if the fork was made in the middle of calls, they end here."""
        lost = self.under_way
        self.begin()
        for job in lost:
            job.cut()

    def call(self, job: Job, others: int) -> None:
        """Hand a job to at most `others` threads."""
        self.start(others)
        for _ in range(min(others, self.started)):
            self.jobs.put(job)

    def start(self, wanted: int) -> None:
        """Have so many threads, unless another call sees to it just now, or there can be no more."""
        if self.started >= wanted or not self.starting.acquire(blocking=False):
            return
        try:
            while self.started < wanted:
                threading.Thread(target=self.serve, args=(self.jobs,), daemon=True, name="clearhead").start()
                self.started += 1
        except RuntimeError:  # the system's limit, or the interpreter is ending: those there are must do
            pass
        finally:
            self.starting.release()

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
    memory, budget = take(scratch_size), SLICE[isa]
    address = memory.address
    if threads == 1:
        while entry(table, address, budget):
            pass
    else:
        job, under_way = Job(entry, table, scratch_size, arrays), crew.under_way
        try:
            under_way.append(job)
            crew.call(job, threads - 1)
            while entry(table, address, budget):
                pass
        finally:
            job.close()
            under_way.remove(job)
    spare.memory = memory
