"""One call where nothing can be compiled: the scalar program of `definition.canonical`, which has the kernels' bits.

Responsible for what it takes and what it refuses. It is a thousand times slower than a kernel, so that it says so once,
and refuses calls that would take more than about a minute.
"""

import numpy as np

from clearhead.arrays import Array
from clearhead.definition import canonical
from clearhead.engine.diagnosis import raise_rule_fault
from clearhead.engine.inputs import Operands, Rules
from clearhead.engine.problem import Problem
from clearhead.errors import MachineError
from clearhead.machine.loading import fault, llvm, notice

MOST_MULTIPLICATIONS = 1 << 30


def check_by_definition(problem: Problem, dims: int) -> None:
    """Raise MachineError for what the definition cannot compute, or not in time, at `dims` multiplications a pair."""
    evicted = problem.paged and problem.first_key > 0
    if problem.carried or problem.native or evicted:
        llvm()  # says what is missing
    count = problem.heads * problem.queries * problem.keys * dims
    if count > MOST_MULTIPLICATIONS:
        raise MachineError(
            f"this call takes {count:,} multiplications, and by the definition at most {MOST_MULTIPLICATIONS:,} are "
            f"done. llvmlite, for machine code, cannot be loaded ({fault()}): install it, or give fewer items or heads."
        )


def compute(operands: Operands, rules: Rules, doubtful: Problem | None, output: Array, lse: Array | None) -> None:
    """Write the output, and the log-sum-exp where it is wanted. `doubtful` is the problem if one of its rules can fail.

    Raises TraceError for a rule that does.
    """
    notice()
    q, k, v, pages = operands
    if doubtful is not None:
        everywhere = np.ones(output.shape[:-1], bool)
        raise_rule_fault(doubtful, everywhere, q, k if pages is None else pages)
    if pages is not None:
        k, v = pages.keys(), pages.values()
    dtype = np.float64 if q.dtype == np.float64 else np.float32
    q, k, v = (x.astype(dtype, copy=False) for x in (q, k, v))
    mask, score, sink, scale, _ = rules
    y, sums = canonical.attention(q, k, v, mask=mask, score=score, sink=sink, scale=scale)
    with np.errstate(over="ignore", invalid="ignore"):
        output[...] = y
    if lse is not None:
        lse[...] = sums
