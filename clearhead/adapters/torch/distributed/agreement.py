"""What all ranks must have in common, compared before any data moves.

Every call on a group begins with `agree`, whichever it is: each rank describes its call as named facts and sends their
digest, of a fixed length, to the others. Where digests differ, ranks exchange the facts themselves, and all raise the
same error, or the error of their own arguments; the group can be used again.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch

from clearhead.adapters.torch.distributed.peers import Peers
from clearhead.arrays import Array
from clearhead.errors import ClearheadError, InputError, reason
from clearhead.machine.fingerprint import fingerprint
from clearhead.machine.target import target

Facts: TypeAlias = dict[str, str]

FUNCTION = "the function"  # names the fact next to which no other matters
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


def agree(peers: Peers, facts: Facts, fault: Exception | None = None, words: Facts | None = None) -> int:
    """The number of this call on the group, which all ranks share; or InputError on every rank if their facts differ.

    A `fault` of this rank's arguments is raised here, and quoted by the others. `words` say some facts as a reader
    knows them. Raises PeerError if a rank does not answer.
    """
    refusal = None if fault is None else {REFUSED: refused(fault)}
    digests = exchanged(peers, hashlib.sha256(json.dumps(refusal or facts).encode()).digest())
    peers.standing.calls += 1
    if len(set(digests)) > 1:
        told = collected_from(peers, [refusal or facts, words or {}])
        if fault is None:
            raise disagreement([facts for facts, _ in told], [words for _, words in told])
    if fault is not None:
        raise fault
    return peers.standing.calls


def refused(fault: Exception) -> str:
    """An error's message for other ranks; a user's rule may raise any."""
    return str(fault) if isinstance(fault, ClearheadError) else f"{type(fault).__name__}: {reason(fault)}"


def collected_from(peers: Peers, own: Any) -> list[Any]:
    """What each rank tells, as JSON."""
    written = json.dumps(own).encode()
    lengths = [int.from_bytes(x, "big") for x in exchanged(peers, len(written).to_bytes(8, "big"))]
    padded = exchanged(peers, written.ljust(max(lengths)))
    return [json.loads(text[:length]) for text, length in zip(padded, lengths, strict=True)]


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


def disagreement(told: Sequence[Facts], words: Sequence[Facts] = ()) -> InputError:
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
        ranks = ranks_by(told, name)
        if len(ranks) > 1:
            said = ranks_by(words, name)
            ranks = said if len(said) == len(ranks) else ranks
            parts.append(
                f"{name}: " + "; ".join(f"{shown(value, ranks)} on {numbered(on)}" for value, on in ranks.items())
            )
            if name == FUNCTION:
                break
    return InputError(
        f"the ranks differ in {', and in '.join(parts)}. Use the same arguments, code and settings on every rank."
    )


def ranks_by(told: Sequence[Facts], name: str) -> dict[str, list[int]]:
    """The ranks that have each value of a fact."""
    ranks: dict[str, list[int]] = {}
    for rank, facts in enumerate(told):
        ranks.setdefault(facts.get(name, "nothing"), []).append(rank)
    return ranks


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
