"""Run by test_reentry.py in a process of its own: between any two instructions of a call, another call is made.

    python every_step.py WORK WORK THREADS POINTS

The first kind of call is traced and interrupted at one instruction, at another in the next round, until about POINTS
have been tried; the second is made there. Both must have their own bits, always.
"""

import sys
import warnings

import numpy as np

import clearhead
from clearhead.engine.launch_cache import launches
from clearhead.machine import threads as machine

machine.SLICE = dict.fromkeys(machine.SLICE, 1)  # a slice is one task, however small
small = np.random.default_rng(0).standard_normal((4, 2, 150, 64))
large = np.random.default_rng(0).standard_normal((4, 2, 30, 300))
cache = clearhead.KeyValueCache()
cache.append(*np.random.default_rng(0).standard_normal((2, 2, 300, 16)))


def forward(x, threads):
    return [clearhead.attention(*x[:3], threads=threads)]


def backward(x, threads):
    found = clearhead.attend(*x[:3], threads=threads).backward(x[3])
    return [found.q, found.k, found.v]


def second(x, threads):
    x = x[:, :, :20]
    changed = clearhead.attend(*x[:3], threads=threads).second(x[3], None, clearhead.Direction(q=x[3]))
    return [changed.output, changed.gradients.v]


def weights(x, threads):
    seen = clearhead.weights(*x[:2], threads=threads)
    return [seen.row(20), seen.summary("entropy").entropy]


def decode(x, threads):
    return [clearhead.attention(x[0, :, :1, :16].repeat(16 // min(16, x.shape[-1]), 2), cache, threads=threads)]


def new(x, threads):
    """A call of which no preparation is known."""
    launches.clear()
    return forward(x, threads)


def same(found, right) -> bool:
    """Whether all bits agree."""
    return all(a.tobytes() == b.tobytes() for a, b in zip(found, right, strict=True))


class Interrupted:
    """A call, interrupted before one of its instructions."""

    def __init__(self, call, inner) -> None:
        self.call, self.inner, self.found = call, inner, []

    def at(self, instruction: int) -> tuple[list, int]:
        """What the call gives, and how many instructions it has."""
        machine.spare.__dict__.clear()  # so that the call within grows what the call around began with
        self.left = self.passed = 0
        self.left = instruction
        sys.settrace(self.trace)
        try:
            result = self.call()
        finally:
            sys.settrace(None)
        return result, self.passed

    def trace(self, frame, event, argument):
        """Count, and make the other call when it is time."""
        frame.f_trace_opcodes = True
        if event == "opcode":
            self.passed += 1
            if self.passed == self.left:
                self.found.append(self.inner())
        return self.trace


def main(outer: str, inner: str, threads: int, points: int) -> None:
    """Interrupt one call everywhere by another."""
    warnings.simplefilter("error")
    works = globals()
    calls = [lambda: works[outer](small, threads), lambda: works[inner](large, 1 if threads == 1 else 2)]
    right = [call() for call in calls]
    one = Interrupted(*calls)
    _, many = one.at(-1)
    tried = 0
    for instruction in range(1, many + 1, max(1, many // points)):
        result, _ = one.at(instruction)
        assert same(result, right[0]), f"{outer} interrupted at instruction {instruction}"
        tried += 1
    assert len(one.found) >= 0.9 * tried
    assert all(same(found, right[1]) for found in one.found), inner
    print(tried, "of", many)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
