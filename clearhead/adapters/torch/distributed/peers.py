"""The processes of a group: messages between them, each wait bounded, and what becomes of a lost one.

Responsible for PeerError. Messages go from one process to another (gloo's tagged sends), so that each wait knows whom
it waits for. gloo closes a process's connections when one of its waits runs out of time; that, or `leave`, ends the
others' waits. The first process to notice writes the reason into the group's store, so that all name the same one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeAlias

import torch
import torch.distributed as dist

from clearhead.errors import InputError, PeerError, reason

Work: TypeAlias = Any  # torch.distributed.Work

ENGINES = ("gloo", "mpi", "ucc")
ROWS, SHARES, NEVER = (1 << 20) + 1, (1 << 20) + 2, (1 << 20) + 3  # tags; messages of the last one are never sent
REASON = "clearhead: why the group ended"
GRACE = 0.75  # seconds to wait for the reason that another process gives
START_ANEW = "The group cannot be used again: start the processes anew."


class Peers:
    """The processes of a group, by their rank in it, during one call."""

    def __init__(self, group: Any, timeout: float) -> None:
        self.group, self.timeout = checked_group(group), timeout
        self.rank, self.size = dist.get_rank(self.group), dist.get_world_size(self.group)

    @property
    def others(self) -> list[int]:
        """All ranks but this one."""
        return [rank for rank in range(self.size) if rank != self.rank]

    def send(self, tensor: torch.Tensor, to: int, what: str, tag: int = ROWS) -> Work:
        """Begin to send a contiguous tensor, which must not change until the work is done."""
        return self.trying(to, what, lambda: dist.isend(tensor, group=self.group, tag=tag, group_dst=to))

    def receive(self, tensor: torch.Tensor, source: int, what: str, tag: int = ROWS) -> Work:
        """Begin to receive into a contiguous tensor; one process's messages with a tag come in the order of sending."""
        return self.trying(source, what, lambda: dist.irecv(tensor, group=self.group, tag=tag, group_src=source))

    def wait(self, work: Work, rank: int, what: str, until: float | None = None) -> None:
        """Wait for a send or receive, for the timeout or until a moment of `time.monotonic`; or raise PeerError."""
        left = self.timeout if until is None else max(0.001, until - time.monotonic())
        self.trying(rank, what, lambda: work.wait(timedelta(seconds=left)))

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
            late = "Timed out" in str(error)
            why = f"did not answer within {self.timeout:g} s" if late else "was lost"
            own = f"rank {rank} {why} while {what} was under way"
            given = None if late else self.given_reason(GRACE)
            self.leave(own if given is None else given)
            raise PeerError(f"{given or self.given_reason(0) or own}. {START_ANEW}") from error

    @contextmanager
    def together(self) -> Iterator[None]:
        """What fails here ends the call on all other ranks, too."""
        try:
            yield
        except PeerError:
            raise
        except BaseException as error:
            self.leave(f"rank {self.rank} stopped: {type(error).__name__}: {reason_of(error)}")
            raise

    def leave(self, why: str) -> None:
        """Say why, and close all connections: a wait that runs out of time does that."""
        bounded(lambda: self.store.compare_set(REASON, "", why))
        with suppress(RuntimeError):
            for other in self.others[:1]:
                never: Work = dist.irecv(torch.empty(1), group=self.group, tag=NEVER, group_src=other)
                never.wait(timedelta(milliseconds=1))

    def given_reason(self, patience: float) -> str | None:
        """The reason that a process of the group has given, or None after some seconds."""
        until = time.monotonic() + patience

        def read() -> str | None:
            while not self.store.check([REASON]):
                if time.monotonic() >= until:
                    return None
                time.sleep(0.02)
            written: bytes = self.store.get(REASON)
            return written.decode()

        answer: str | None = bounded(read)
        return answer

    @property
    def store(self) -> Any:
        """The group's store."""
        return self.group.get_group_store()


def bounded(step: Callable[[], Any]) -> Any:
    """A step's result, or None if it fails or takes long: a store may be in a lost process."""
    results: list[Any] = []

    def run() -> None:
        with suppress(Exception):
            results.append(step())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(GRACE + 0.25)
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
    if dist.get_rank(group) < 0:
        raise InputError("this process is not in the group: call it with a group that it is in.")
    group = group or dist.group.WORLD
    engine = group._get_backend(torch.device("cpu")).name()
    if engine not in ENGINES:
        raise InputError(
            f"this group exchanges tensors in CPU memory by {engine}, but {', '.join(ENGINES)} are known: make one by "
            "torch.distributed.new_group(backend='gloo')."
        )
    return group
