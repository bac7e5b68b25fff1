"""Share one call among threads: each takes tiles from the call's queue until none is left.

Responsible for who runs and who waits; which thread computes a tile does not change a bit. The calling thread works
too, in slices of a few milliseconds, and notices Ctrl-C between them: it empties the queue, waits for the others, and
raises.

Between slices, and wherever else Python may run a signal handler, a finalizer or a garbage collection callback, another
call can start in the same thread. Therefore scratch memory belongs to one call until it ends, and no thread waits while
it holds a lock.
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

NEXT_TASK, TASKS, THREADS = (FIELDS.index(name) for name in ("next_task", "tasks", "threads"))
Table: TypeAlias = "ctypes.Array[ctypes.c_int64]"
UNLIMITED = 1 << 62  # a budget that never ends
SLICE = {
    "avx512": 1 << 29,
    "avx2": 1 << 28,
    "neon": 1 << 27,
    "generic": 1 << 20,
}  # multiply-adds, a few milliseconds
WORTH_A_THREAD = 1 << 22  # multiply-adds, about 30 µs; waking a thread takes half of that


def allowed() -> int:
    """The number of threads that a call may use: CLEARHEAD_THREADS, or all cores this process may run on."""
    text = settings.THREADS.read()
    if not text.isdecimal():
        raise InputError(f"CLEARHEAD_THREADS={text} is not a number of threads: use 0 for every core, or 1, 2, 3 …")
    if int(text):
        return int(text)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Memory(NamedTuple):
    """Scratch memory of one thread for one call: `size` bytes at `address`, in `array`."""

    size: int
    address: int
    array: npt.NDArray[np.uint8]


spare = threading.local()  # its `memory`: scratch memory of this thread's last call, for reuse


def take(size: int) -> Memory:
    """Take scratch memory of at least `size` bytes, aligned to a cache line; the caller owns it until it puts it back.

    Taking is atomic: a call that starts in between finds the memory either free or taken.
    """
    memory: Memory | None = spare.__dict__.pop("memory", None)
    if memory is None or memory.size < size:
        array = np.empty(size + 64, np.uint8)
        memory = Memory(size, (array.ctypes.data + 63) & ~63, array)
    return memory


@dataclass
class Job:
    """One call, which other threads may join until the caller closes it."""

    entry: Entry
    table: Table
    scratch_size: int
    arrays: tuple[object, ...]  # memory that the kernel uses, kept alive until the last thread is done
    done: "SimpleQueue[BaseException | None]" = field(default_factory=SimpleQueue)
    lock: threading.Lock = field(default_factory=threading.Lock)
    joined: int = 0
    closed: bool = False

    def work(self) -> None:
        """Compute tiles until none is left, then report; do nothing if the job is closed."""
        with self.lock:
            if self.closed:
                return
            self.joined += 1
        try:
            memory = take(self.scratch_size)
            self.entry(self.table, memory.address, UNLIMITED)
            spare.memory = memory
            self.done.put(None)
        except BaseException as error:
            self.done.put(error)

    def close(self) -> None:
        """Stop other threads from joining or starting a tile, and wait for running ones despite interrupts."""
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
        """End the job in a forked child, where the threads that had joined do not exist."""
        self.lock = threading.Lock()
        if self.joined:
            self.table[NEXT_TASK] = self.table[TASKS]
        for _ in range(self.joined):
            lost = "this process was forked in the middle of a call and has none of the threads that shared it"
            self.done.put(MachineError(f"{lost}: call again, or with threads=1 where a signal handler forks."))


class Crew:
    """The worker threads, started on first use; a forked child starts new ones."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Reset to no threads, as in a new process."""
        self.jobs: SimpleQueue[Job] = SimpleQueue()
        self.running: list[Job] = []
        self.started = 0
        self.starting = threading.Lock()

    def forget(self) -> None:
        """Reset in a forked child, and end the calls that were running at the fork."""
        lost = self.running
        self.begin()
        for job in lost:
            job.cut()

    def call(self, job: Job, others: int) -> None:
        """Offer a job to at most `others` threads."""
        self.start(others)
        for _ in range(min(others, self.started)):
            self.jobs.put(job)

    def start(self, wanted: int) -> None:
        """Start threads up to `wanted`, unless another call is doing so or the system allows no more."""
        if self.started >= wanted or not self.starting.acquire(blocking=False):
            return
        try:
            while self.started < wanted:
                threading.Thread(target=self.serve, args=(self.jobs,), daemon=True, name="clearhead").start()
                self.started += 1
        except RuntimeError:  # the system's limit, or the interpreter is exiting: use the existing ones
            pass
        finally:
            self.starting.release()

    @staticmethod
    def serve(jobs: "SimpleQueue[Job]") -> None:
        """Run jobs as they arrive."""
        while True:
            jobs.get().work()


crew = Crew()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=crew.forget)


def run_kernel(
    entry: Entry, table: Table, scratch_size: int, threads: int, isa: str, arrays: tuple[object, ...]
) -> None:
    """Run one call to completion on `threads` threads, including the calling one."""
    memory, budget = take(scratch_size), SLICE[isa]
    address = memory.address
    if threads == 1:
        while entry(table, address, budget):
            pass
    else:
        table[THREADS] = threads
        job, running = Job(entry, table, scratch_size, arrays), crew.running
        try:
            running.append(job)
            crew.call(job, threads - 1)
            while entry(table, address, budget):
                pass
        finally:
            job.close()
            running.remove(job)
    spare.memory = memory
