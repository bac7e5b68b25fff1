"""What all ranks must have in common, compared before any data moves.

Each rank describes its call as named facts and sends their digest to the others. Where digests differ, ranks exchange
the facts themselves, and all raise the same error; the group can be used again.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from typing import TypeAlias

import torch

from clearhead.adapters.torch.distributed.peers import Peers
from clearhead.arrays import Array
from clearhead.errors import ClearheadError, InputError
from clearhead.machine.fingerprint import fingerprint
from clearhead.machine.target import target

Facts: TypeAlias = dict[str, str]

REFUSED = "refused"  # names the fact of a rank that refuses its own arguments
MOST_SHOWN = 120  # characters of a fact in a message


def own_code() -> Facts:
    """What determines the bits besides the arguments."""
    return {
        "the version of clearhead": sys.modules["clearhead"].__version__,
        "clearhead's source files or tools": fingerprint() or "changed since the import",
        "the instruction set (CLEARHEAD_ISA)": target().isa,
    }


def digest_of(arrays: Sequence[Array]) -> str:
    """Shape, dtype and content of arrays as a short text."""
    return ", ".join(f"{x.dtype.name}{x.shape} {hashlib.sha256(x.tobytes()).hexdigest()[:16]}" for x in arrays)


def agree(peers: Peers, facts: Facts, fault: ClearheadError | None = None) -> None:
    """Raise InputError on every rank unless all have the same facts; a `fault` of this rank's arguments is raised here.

    Raises PeerError if a rank does not answer.
    """
    written = json.dumps(facts if fault is None else {REFUSED: str(fault)}).encode()
    digests = exchanged(peers, hashlib.sha256(written).digest())
    if fault is None and len(set(digests)) == 1:
        return
    if len(set(digests)) > 1:
        lengths = [int.from_bytes(x, "big") for x in exchanged(peers, len(written).to_bytes(8, "big"))]
        padded = exchanged(peers, written.ljust(max(lengths)))
        told = [json.loads(text[:length]) for text, length in zip(padded, lengths, strict=True)]
    else:
        told = [json.loads(written)] * peers.size
    if fault is not None:
        raise fault
    raise disagreement(told)


def exchanged(peers: Peers, own: bytes) -> list[bytes]:
    """Each rank's message, all of one length."""
    what = "the comparison of the arguments"
    outgoing = torch.frombuffer(bytearray(own), dtype=torch.uint8)
    incoming = {rank: torch.empty_like(outgoing) for rank in peers.others}
    sends = [(rank, peers.send(outgoing, rank, what)) for rank in peers.others]
    receives = [(rank, peers.receive(incoming[rank], rank, what)) for rank in peers.others]
    with peers.watched():
        peers.wait_all([*receives, *sends], what)
    return [own if rank == peers.rank else incoming[rank].numpy().tobytes() for rank in range(peers.size)]


def disagreement(told: Sequence[Facts]) -> InputError:
    """The error that names what differs, and where.

    >>> print(disagreement([{"the scale": "1.0"}, {"the scale": "1.0"}, {"the scale": "0.5"}]))
    the ranks differ in the scale: 1.0 on ranks 0, 1; 0.5 on rank 2. Use the same arguments, code and settings on every
    rank.
    """
    refused = {rank: facts[REFUSED] for rank, facts in enumerate(told) if REFUSED in facts}
    if refused:
        return InputError("; ".join(f"rank {rank} refused its arguments: {why}" for rank, why in refused.items()))
    parts = []
    for name in dict.fromkeys(name for facts in told for name in facts):
        ranks: dict[str, list[int]] = {}
        for rank, facts in enumerate(told):
            ranks.setdefault(facts.get(name, "nothing"), []).append(rank)
        if len(ranks) > 1:
            parts.append(
                f"{name}: " + "; ".join(f"{shown(value, ranks)} on {numbered(on)}" for value, on in ranks.items())
            )
    return InputError(
        f"the ranks differ in {', and in '.join(parts)}. Use the same arguments, code and settings on every rank."
    )


def shown(value: str, among: Sequence[str] | dict[str, list[int]]) -> str:
    """A value, cut to the part in which it differs from the others if it is long.

    >>> shown("a" * 200 + "bc", ["a" * 200 + "de"])
    '…aaaaaaaaaabc'
    """
    if len(value) <= MOST_SHOWN:
        return value
    same = min((common(value, other) for other in among if other != value), default=0)
    first = max(0, same - 10)
    return "…" * (first > 0) + value[first : first + MOST_SHOWN] + "…" * (first + MOST_SHOWN < len(value))


def common(a: str, b: str) -> int:
    """How many characters two texts begin with in common."""
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def numbered(ranks: Sequence[int]) -> str:
    """Ranks in words.

    >>> numbered([3]), numbered([0, 1])
    ('rank 3', 'ranks 0, 1')
    """
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))}"
