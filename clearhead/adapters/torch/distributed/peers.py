"""The processes of a group: messages between them, each wait bounded, and what becomes of a lost one.

Responsible for PeerError. Messages go from one process to another (gloo's tagged sends), so that each wait knows whom
it waits for. gloo closes a process's connections when one of its waits runs out of time; that, or `leave`, ends the
others' waits. A process may wait for one that itself waits for a third: so whoever runs out of time asks, through the
group's store, who waits for whom, and writes down whom it found; all others name the same one.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist

from clearhead.errors import InputError, PeerError, reason

Work: TypeAlias = Any  # torch.distributed.Work

ENGINES = ("gloo", "mpi", "ucc")
ROWS, SHARES, NEVER = (1 << 20) + 1, (1 << 20) + 2, (1 << 20) + 3  # tags; messages of the last one are never sent
REASON, TROUBLE, STATE = (f"clearhead: {name}" for name in ("why the group ended", "a wait has ended", "rank"))
POLL, ANSWER, GRACE = (
    0.2,
    0.6,
    1.2,
)  # seconds: between looks at the store; for a rank to say for whom it waits; for a reason
PARTING = 1.0  # seconds for a look at the store to end; longer if it is in a lost process
START_ANEW = "The group cannot be used again: start the processes anew."


@dataclass
class Standing:
    """What a process keeps of a group from call to call."""

    calls: int = 0  # compared so far; the same on all ranks
    busy: threading.Lock = field(default_factory=threading.Lock)


standings: WeakKeyDictionary[Any, Standing] = WeakKeyDictionary()


class Peers:
    """The processes of a group, by their rank in it, during one call."""

    def __init__(self, group: Any, timeout: float) -> None:
        self.group, self.timeout = checked_group(group), timeout
        self.waits: tuple[int, str] | None = None  # whose message, and what it is, while this process waits
        self.standing = standings.setdefault(self.group, Standing())
        self.rank, self.size = dist.get_rank(self.group), dist.get_world_size(self.group)

    @property
    def others(self) -> list[int]:
        """All ranks but this one."""
        return [rank for rank in range(self.size) if rank != self.rank]

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Refuse another thread's call meanwhile: calls find each other by their order, which threads do not keep."""
        if not self.standing.busy.acquire(blocking=False):
            raise InputError(
                "another thread of this process is in a call on this group, and a group's calls pair by their order: "
                "give each thread a group of its own, by torch.distributed.new_group(backend='gloo')."
            )
        try:
            yield
        finally:
            self.standing.busy.release()

    def send(self, tensor: torch.Tensor, to: int, what: str, tag: int = ROWS) -> Work:
        """Begin to send a contiguous tensor, which must not change until the work is done."""
        return self.trying(to, what, lambda: dist.isend(tensor, group=self.group, tag=tag, group_dst=to))

    def receive(self, tensor: torch.Tensor, source: int, what: str, tag: int = ROWS) -> Work:
        """Begin to receive into a contiguous tensor; one process's messages with a tag come in the order of sending."""
        return self.trying(source, what, lambda: dist.irecv(tensor, group=self.group, tag=tag, group_src=source))

    def wait(self, work: Work, rank: int, what: str, until: float | None = None) -> None:
        """Wait for a send or receive, for the timeout or until a moment of `time.monotonic`; or raise PeerError."""
        left = self.timeout if until is None else max(0.001, until - time.monotonic())
        self.waits = rank, what
        self.trying(rank, what, lambda: work.wait(timedelta(seconds=left)))
        self.waits = None

    def wait_all(self, works: Sequence[tuple[int, Work]], what: str) -> None:
        """Wait for sends and receives, together for the timeout; each comes with the rank at its other end."""
        until = time.monotonic() + self.timeout
        for rank, work in works:
            self.wait(work, rank, what, until)

    def trying(self, rank: int, what: str, step: Callable[[], Any]) -> Any:
        """A step that fails if its peer is lost."""
        try:
            return step()
        except RuntimeError as error:
            if "Timed out" in str(error):
                rank, what = bounded(lambda: self.awaited(rank, what), ANSWER + POLL) or (rank, what)
                why = f"rank {rank} did not answer within {self.timeout:g} s while {what} was under way"
            else:
                given = bounded(lambda: self.given_reason(GRACE), GRACE + POLL)
                why = given or f"rank {rank} was lost while {what} was under way"
            self.leave(why)
            why = bounded(lambda: self.given_reason(0), POLL) or why
            account = "by another rank's account, " if why.startswith(f"rank {self.rank} ") else ""
            raise PeerError(f"{account}{why}. {START_ANEW}") from error

    def awaited(self, rank: int, what: str) -> tuple[int, str]:
        """Who is to blame for a wait that ended: the rank waited for, unless it waits for another one itself.

        Where ranks wait for each other, all are only slow, and it is the rank waited for.
        """
        self.store.set(TROUBLE, "yes")
        first = rank, what
        until, asked = time.monotonic() + ANSWER, {self.rank}
        while rank not in asked:
            asked.add(rank)
            key = f"{STATE} {rank}"
            while not self.store.check([key]) and time.monotonic() < until:
                time.sleep(POLL / 10)
            state = json.loads(self.store.get(key)) if self.store.check([key]) else None
            if state is None:  # it is lost or stopped, or computes
                return rank, what
            rank, what = state
        return first

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Meanwhile, tell others for whom this rank waits when they ask, and end its wait when the call has failed."""
        over = threading.Event()
        watching = threading.Thread(target=self.watch, args=(over,), daemon=True)
        watching.start()
        try:
            yield
        finally:
            over.set()
            watching.join(PARTING)  # Python ends by an abort if a thread is within the store then

    def watch(self, over: threading.Event) -> None:
        """Look at the store now and then; if it is in a lost process, waits end by themselves."""
        with suppress(Exception):
            while not over.wait(POLL):
                if self.store.check([TROUBLE]):
                    self.store.set(f"{STATE} {self.rank}", json.dumps(self.waits))
                    while not self.store.check([REASON]) and not over.wait(POLL):
                        pass
                    if not over.is_set():
                        self.close()
                    return

    @contextmanager
    def together(self) -> Iterator[None]:
        """What fails here ends the call on all other ranks, too."""
        try:
            with self.watched():
                yield
        except PeerError:
            raise
        except BaseException as error:
            self.leave(f"rank {self.rank} stopped: {type(error).__name__}: {reason_of(error)}")
            raise

    def leave(self, why: str) -> None:
        """Say why the group ends, unless another rank has, and close all connections."""
        bounded(lambda: self.store.set(TROUBLE, "yes") or self.store.compare_set(REASON, "", why), POLL)
        self.close()

    def close(self) -> None:
        """Close all connections: a wait that runs out of time does that."""
        with suppress(RuntimeError):
            for other in self.others[:1]:
                never: Work = dist.irecv(torch.empty(1), group=self.group, tag=NEVER, group_src=other)
                never.wait(timedelta(milliseconds=1))

    def given_reason(self, patience: float) -> str | None:
        """The reason that a process of the group has given, or None after some seconds."""
        until = time.monotonic() + patience
        while not self.store.check([REASON]):
            if time.monotonic() >= until:
                return None
            time.sleep(POLL / 10)
        written: bytes = self.store.get(REASON)
        return written.decode()

    @property
    def store(self) -> Any:
        """The group's store."""
        return self.group.get_group_store()


def bounded(step: Callable[[], Any], patience: float) -> Any:
    """A step's result, or None if it fails or takes longer: a store may be in a lost process."""
    results: list[Any] = []

    def run() -> None:
        with suppress(Exception):
            results.append(step())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(patience)
    return results[0] if results else None


def reason_of(error: BaseException) -> str:
    """An error's message as one line."""
    return reason(error) if isinstance(error, Exception) else "no more is known"


def checked_group(group: Any) -> Any:
    """A group, by default of all processes, whose engine can wait for one process at a time, or InputError."""
    if not dist.is_available() or not dist.is_initialized():
        raise InputError(
            "torch.distributed is not initialized in this process: start it by torchrun and call "
            "torch.distributed.init_process_group('gloo') first."
        )
    outside = group is dist.GroupMember.NON_GROUP_MEMBER
    if not (outside or group is None or isinstance(group, dist.ProcessGroup)):
        raise InputError(f"group={group!r} is not a group: give one by torch.distributed.new_group, or leave it out.")
    if outside or dist.get_rank(group) < 0:
        raise InputError("this process is not in the group: call it with a group that it is in.")
    group = group or dist.group.WORLD
    engine = group._get_backend(torch.device("cpu")).name()
    if engine not in ENGINES:
        raise InputError(
            f"this group exchanges tensors in CPU memory by {engine}, but {', '.join(ENGINES)} are known: make one by "
            "torch.distributed.new_group(backend='gloo')."
        )
    return group
