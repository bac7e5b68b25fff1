"""One call of the backward kernels over a piece: some queries, some keys, and what belongs to the queries."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from clearhead.arrays import Array
from clearhead.cache.key_value import KeyValueCache
from clearhead.engine.inputs import Operands
from clearhead.engine.problem import as_array, problem_of
from clearhead.errors import DtypeError, InputError, ShapeError
from clearhead.gradients.backward import (
    GIVE_D_OUT,
    check_d_out,
    checked_d_lse,
    share,
    walked_strides,
)
from clearhead.gradients.launch import BackwardLaunch, GradientSums
from clearhead.kernels.abi.variant import Wanted
from clearhead.machine.threads import allowed
from clearhead.pieces.order import check_key_cut
from clearhead.pieces.stretch import Call, check_first_key

GIVE_OPERANDS = "give the keys and values of the stretch"
GIVE = "give what attend(q, k, v) or a finished Partial has"


@dataclass(frozen=True)
class Piece:
    """One call: some queries over some keys, and what belongs to the queries."""

    launch: BackwardLaunch
    operands: tuple[Array, ...]
    lse: Array
    d_output: Array
    d_lse: Array | None
    threads: int | None

    def add_to(self, sums: GradientSums) -> None:
        """Add its gradients to the sums."""
        self.launch.run(self.operands, self.lse, self.d_output, self.d_lse, self.threads or allowed(), sums)


def piece_of(
    call: Call,
    of_keys: tuple[Any, ...],
    of_queries: tuple[Any, ...],
    first_key: int,
    wanted: Wanted,
    head: tuple[int, int] | None = None,
) -> Piece:
    """Check a call and prepare it. With `head`, one head of each group is here, the problem is that of all heads."""
    first_key = check_first_key(first_key)
    q, rules, threads, _ = call
    if isinstance(of_keys[0], KeyValueCache):
        raise InputError(f"{of_keys[0]!r} is a cache, which has no gradients: {GIVE_OPERANDS} as arrays.")
    k, v = (as_array(x, name, GIVE_OPERANDS) for x, name in zip(of_keys, "kv", strict=True))
    operands = Operands(q, k, v)
    every = operands if head is None else operands._replace(q=with_all_heads(operands, head[1]))
    problem = problem_of(every, rules, unrounded=True, first_key=first_key)
    check_key_cut(problem.rules.spans, problem.first_key)
    *lead, heads = problem.lead or (1,)
    lead = [*lead, heads // head[1]] if head else list(problem.lead)
    out, lse = (as_array(x, name, GIVE) for x, name in zip(of_queries[:2], ("out", "lse"), strict=True))
    check_of_queries("out", out, (*lead, problem.queries, problem.value_dim), problem.computed)
    check_of_queries("lse", lse, (*lead, problem.queries), problem.computed)
    d_output = as_array(of_queries[2], "d_out", GIVE_D_OUT)
    check_d_out(d_output, out.shape, q.dtype)
    d_lse = None if of_queries[3] is None else checked_d_lse(as_array(of_queries[3], "d_lse"), lse)
    output, d_output_steps = (walked_strides(problem, x, one_of_group=head is not None) for x in (out, d_output))
    query = walked_strides(problem, q, one_of_group=True) if head else problem.query
    problem = replace(problem, query=query, output=output, rules=problem.rules.trusted, carried=True)
    launch = BackwardLaunch(
        problem, d_output_steps, (), share(problem, k, v), wanted, head=None if head is None else head[0]
    )
    if head is not None:
        lse, d_lse = among_all_heads(lse, head), None if d_lse is None else among_all_heads(d_lse, head)
    return Piece(launch, (q, k, v, out), np.ascontiguousarray(lse), d_output, d_lse, threads)


def with_all_heads(operands: Operands, group: int) -> Array:
    """An array of the shape and dtype that all query heads have, without their numbers."""
    q, k, v, _ = operands
    key_heads = max(x.shape[-3] if x.ndim > 2 else 1 for x in (k, v))
    if q.ndim < 3 or q.shape[-3] != key_heads:
        raise ShapeError(
            f"head=(…, {group}) says that q has one of the {group} heads that share each of {key_heads} key heads, but "
            f"q has shape {q.shape}: give q[..., i::{group}, :, :]."
        )
    return np.broadcast_to(np.zeros((), q.dtype), (*q.shape[:-3], key_heads * group, *q.shape[-2:]))


def among_all_heads(x: Array, head: tuple[int, int]) -> Array:
    """One number for each query of one head of each group, where it stands among those of all heads."""
    number, group = head
    every = np.zeros((*x.shape[:-1], group, x.shape[-1]), x.dtype)
    every[..., number, :] = x
    return every


def check_of_queries(name: str, array: Array, shape: tuple[int, ...], dtype: str) -> None:
    """Check what the forward pass gave for the queries."""
    if array.shape != shape:
        raise ShapeError(f"{name} has shape {array.shape}, these queries' is {shape}: {GIVE} for them.")
    if array.dtype != dtype:
        raise DtypeError(
            f"{name} has dtype {array.dtype}, but {dtype} is needed: {GIVE}, and of 16-bit operands the output before "
            "it was rounded."
        )
