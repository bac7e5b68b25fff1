"""A rank that is killed, stopped or fails ends the call on all others, in time and by name: never a hang."""

import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from clearhead import PeerError  # noqa: E402
from clearhead.adapters.torch.distributed import Layout, shard, sharded_attention  # noqa: E402
from clearhead.adapters.torch.distributed.peers import STATE, Peers  # noqa: E402
from tests.adapters.ranks import Ranks  # noqa: E402

LENGTH = 6 * 2048  # over three ranks: 0 1 2 2 1 0
TIMEOUT = 4.0


def attend_until(group: Any, what: str, after: int, note: str) -> tuple[float, Any]:
    """A call in which the last rank comes to an end when it begins its `after`th message; when it ended, and how."""
    distributed = torch.distributed
    layout = Layout(LENGTH, distributed.get_world_size(group))
    x = shard(torch.ones(1, LENGTH, 16), layout, group=group)
    send, sent = distributed.isend, 0

    def ending(tensor, *args, **options):
        nonlocal sent
        sent += tensor.dtype is not torch.uint8  # the comparison of arguments
        if sent == after and what == "fails":
            raise MemoryError("no room")
        if sent == after:
            Path(note).write_text(str(time.monotonic()))
            os.kill(os.getpid(), signal.SIGKILL if what == "is killed" else signal.SIGSTOP)
        return send(tensor, *args, **options)

    if distributed.get_rank(group) == layout.ranks - 1:
        distributed.isend = ending
    error = None
    try:
        sharded_attention(x, x, x, layout, group=group, way="stream", timeout=TIMEOUT)
    except Exception as raised:
        error = raised
    finally:
        distributed.isend = send
    return time.monotonic(), error


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    ranks = Ranks(4, tmp_path_factory.mktemp("group"), [(0, 1, 3)])
    ranks.run(attend_until, "goes on", 0, "", ranks=range(4))  # all have their kernels
    yield ranks
    ranks.close()


def test_a_rank_that_fails_tells_the_others_why(workers):
    """Its own error stays its own."""
    (_, other), (_, own) = workers.run(attend_until, "fails", 1, "", ranks=(0, 1))
    assert type(own) is MemoryError
    assert type(other) is PeerError
    assert str(other).startswith("rank 1 stopped: MemoryError: no room. The group cannot be used again")


ENDS = {
    "is killed": ((0, 1, 2), "rank 2 was lost"),
    "is stopped": ((0, 1, 3), "rank 2 did not answer within 4 s"),
}


@pytest.mark.parametrize("what", ENDS)
def test_a_lost_rank_ends_the_call_on_all_others_in_time(workers, what, tmp_path):
    """Which segment depends on how far the others are: the lost rank has begun segments that it has not yet used."""
    ranks, named = ENDS[what]
    note = tmp_path / "when"
    workers.begin(attend_until, what, 3, str(note), ranks=ranks)
    answers = [workers.answer(rank) for rank in ranks[:2]]
    for when, error in answers:
        assert type(error) is PeerError
        assert re.match(f"{named} while segment [1-6] of 6 was under way", str(error)), error
        assert when - float(note.read_text()) < TIMEOUT + 2


class Slow(Peers):
    """Rank 0, whose wait for rank 1 has ended."""

    store = torch.distributed.HashStore()

    def __init__(self) -> None:
        self.rank = 0


def test_no_rank_blames_itself():
    """Two ranks that wait for each other are slow, not lost; a rank that waits for a third passes the blame on."""
    slow = Slow()
    slow.store.set(f"{STATE} 1", json.dumps([0, "segment 2 of 3"]))
    assert slow.awaited(1, "segment 1 of 3") == (1, "segment 1 of 3")
    slow.store.set(f"{STATE} 1", json.dumps([2, "segment 2 of 3"]))
    assert slow.awaited(1, "segment 1 of 3") == (2, "segment 2 of 3")
