"""Prepare the gradients of a problem: the backward kernel's variant, call table, scratch memory and tasks.

Responsible for deciding which heads share gradients of keys and values (and so form a chain, see `kernels.backward`),
how much memory a call needs, and how many threads work. `engine.launch` does the same for the forward kernel.
"""

import ctypes
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np

from clearhead.arrays import Array
from clearhead.definition.gradient import add_at, is_float
from clearhead.engine.launch import (
    NO_EDGE,
    array_parameters,
    bits,
    block_fields,
    key_rows_bytes,
    key_rows_of,
    scratch_offsets,
    spec_for,
)
from clearhead.engine.problem import Operand, Problem, dense_strides
from clearhead.kernels.abi.call import PLACE, SEEN_BYTES
from clearhead.kernels.abi.gradient_call import AXIS, DONE, FIELDS, GRADIENT_BLOCK
from clearhead.kernels.abi.tiles import padded
from clearhead.kernels.abi.variant import Contribution, Variant, Wanted
from clearhead.machine.address import address
from clearhead.machine.compile import Kernel, KernelSpec, kernels
from clearhead.machine.threads import WORTH_A_THREAD, run_kernel
from clearhead.once import cached_property
from clearhead.rules.derivatives import by_loads, by_score
from clearhead.rules.evaluation import evaluate
from clearhead.rules.expression import Expression, Formula, depends, rewrite

TURNS = 4  # chains per thread that are worked on in turn, to hide waiting for a late one
SPAN_BYTES = 256  # estimated size of one document's Span object
AT = {name: n for n, name in enumerate(FIELDS)}
PER_HEAD = frozenset({"batch", "head"})


class Template(NamedTuple):
    """A call table without addresses, the fields for addresses of rules' gradients, and the arrays it refers to."""

    numbers: tuple[int, ...]
    scattered: tuple[int, ...]
    kept: tuple[Any, ...]


class GradientSums(NamedTuple):
    """Where a call adds gradients: of queries (lead, n, d), of keys and values (key_axes, m, padded dim)."""

    query: Array
    key: Array
    value: Array


@dataclass(frozen=True)
class BackwardLaunch:
    """A prepared backward call: the problem of the forward call, and the strides of d_output."""

    problem: Problem
    d_output: Operand
    arrays: tuple[int, ...]  # numbers of the rules' arrays that get a gradient
    shared: bool  # whether heads of the last axis share keys and values, and so their gradients
    wanted: Wanted = "all"
    head: int | None = None  # the only one at work of those that share keys and values; the earlier ones are done

    @property
    def group(self) -> int:
        """How many heads share keys and values."""
        return self.problem.axes[-1] if self.shared else 1

    @property
    def chains(self) -> int:
        """How many (keys, dim) gradients there are."""
        return math.prod(self.key_axes)

    @property
    def key_axes(self) -> tuple[int, ...]:
        """The leading axes of the gradients of keys and values, as the kernel computes them."""
        return self.problem.axes[:-1] if self.shared else self.problem.axes

    @property
    def keys(self) -> int:
        """How many keys the arrays hold."""
        return self.problem.keys - self.problem.first_key

    @property
    def d_query_dtype(self) -> str:
        """The dtype of the queries' gradient, unrounded if more is added: of heads that share them, of later keys."""
        steps = zip(self.problem.axes, self.problem.query.lead, strict=True)
        added = self.problem.carried or any(size > 1 and step == 0 for size, step in steps)
        return self.problem.computed if added else self.problem.dtype

    @cached_property
    def variant(self) -> Variant:
        """The forward kernel's rules and their derivatives."""
        problem = self.problem
        score, mask, _, arrays = self.expressions
        base = Variant(
            score=score,
            mask=mask,
            storage=problem.storage,
            unrounded=self.d_query_dtype != problem.dtype,
            key_rows=key_rows_of(problem),
            long=problem.rules.long and problem.computed == "float32",
            gradients=self.wanted,
            carried=problem.carried,
        )
        if score is None:
            return replace(base, arrays=kinds_of(arrays))
        contributions, scattered = [], self.scattered
        for load, coefficient in by_loads(score):
            number = load.array or 0
            if number in self.arrays:
                if number in scattered:
                    target, scatter = (
                        len(arrays) + scattered.index(number),
                        scatter_of(load, arrays[number], problem.keys),
                    )
                    contributions.append(Contribution(load, coefficient, target, scatter))
                else:
                    contributions.append(Contribution(load, coefficient))
        sums = kinds_of(arrays) + tuple((problem.computed, arrays[number].ndim) for number in scattered)
        return replace(base, arrays=sums, score_derivative=by_score(score), contributions=tuple(contributions))

    @cached_property
    def scattered(self) -> tuple[int, ...]:
        """Arrays from which the pairs of one head read more than one element."""
        score = self.expressions[0]
        loads = [load for load, _ in by_loads(score)] if score else []
        per_pair = {load.array or 0 for load in loads if not depends(load) <= PER_HEAD}
        return tuple(number for number in self.arrays if number in per_pair)

    @cached_property
    def spec(self) -> KernelSpec:
        """The kernel's plan, with the tile and target of the forward kernel."""
        forward = spec_for(self.problem)
        return KernelSpec("backward", forward.tile, forward.target, self.variant)

    @cached_property
    def kernel(self) -> Kernel:
        """The compiled kernel."""
        return kernels.get(self.spec)

    @property
    def tiles(self) -> list[tuple[int, int, int, int, int]]:
        """Queries of each tile and keys of its document, ascending: (first query, queries, shift, first key, keys)."""
        step, first_key = self.spec.tile.queries, self.problem.first_key
        return [
            (first, min(step, span.first_query + span.queries - first), span.offset, span.first_key, keys)
            for span in self.problem.rules.spans
            for keys in (span.keys if span.first_key + span.keys > first_key else 0,)
            for first in range(span.first_query, span.first_query + span.queries, step)
        ]

    def zeros(self) -> GradientSums:
        """GradientSums to begin with; those that are not wanted are empty."""
        problem = self.problem
        queries, keys = (
            (0 if self.wanted == "keys" else problem.queries),
            (0 if self.wanted == "queries" else self.keys),
        )
        d_query = np.zeros((*problem.lead, queries, problem.query_dim), self.d_query_dtype)
        d_key, d_value = (
            np.zeros((*self.key_axes, keys, padded(dim)), problem.computed)
            for dim in (problem.query_dim, problem.value_dim)
        )
        return GradientSums(d_query, d_key, d_value)

    def run(
        self,
        operands: Sequence[Array],
        lse: Array,
        d_output: Array,
        d_lse: Array | None,
        threads: int,
        to: GradientSums,
    ) -> dict[int, Array]:
        """Add a call's gradients to the sums, and give those of the rules' arrays."""
        problem = self.problem
        computed = np.dtype(problem.computed)
        _, _, _, arrays = self.expressions
        found = {number: np.zeros(arrays[number].shape, computed) for number in self.arrays}
        tasks = self.chains * self.group * len(self.tile_table)
        sums = np.zeros((tasks, max(1, len(self.variant.contributions))), computed)
        if tasks and problem.keys:
            progress, done = np.zeros(tasks, np.int64), np.full(1, DONE, np.int64)
            progress.reshape(self.chains, -1)[:, : (self.head or 0) * len(self.tile_table)] = DONE
            count = max(1, min(threads, tasks, self.work // WORTH_A_THREAD))
            template, address_fields, kept = self.template(count)
            numbers = list(template)
            for field, number in zip(address_fields, self.scattered, strict=True):
                numbers[field] = address(found[number])
            call_arrays = dict(zip(("query", "key", "value", "output"), operands, strict=True))
            call_arrays |= {"lse": lse, "d_output": d_output, "d_query": to.query, "d_key": to.key, "d_value": to.value}
            call_arrays |= {"progress": progress, "done": done, "sums": sums}
            if d_lse is not None:
                call_arrays["d_lse"] = d_lse
            for name, array in call_arrays.items():
                numbers[AT[name]] = address(array) - self.before_first_key.get(name, 0)
            alive, isa = (call_arrays, kept, found), self.spec.target.isa
            for numbers[AT["next_task"]], numbers[AT["tasks"]] in self.tasks_at_work(self.together(count)):
                table = (ctypes.c_int64 * len(numbers))(*numbers)
                run_kernel(self.kernel.entry, table, self.scratch_layout[1], count, isa, alive)
            self.add_sums(found, sums.reshape(self.chains * self.group, len(self.tile_table), -1))
        return found

    @cached_property
    def before_first_key(self) -> dict[str, int]:
        """Bytes of the rows of earlier keys: tiles count keys from the document's first one, wherever arrays begin."""
        problem, size = self.problem, np.dtype(self.problem.computed).itemsize
        rows = {"key": problem.key.row, "value": problem.value.row}
        rows |= {"d_key": padded(problem.query_dim) * size, "d_value": padded(problem.value_dim) * size}
        return {name: problem.first_key * row for name, row in rows.items()}

    def tasks_at_work(self, together: int) -> Iterator[tuple[int, int]]:
        """Ranges of tasks: all, or one head's, which lie side by side in each batch of chains that take turns."""
        tiles = len(self.tile_table)
        if self.head is None:
            yield 0, self.chains * self.group * tiles
            return
        for chain in range(0, self.chains, together):
            width = min(together, self.chains - chain)
            first = (chain * self.group + self.head * width) * tiles
            yield first, first + width * tiles

    def add_sums(self, found: dict[int, Array], sums: Array) -> None:
        """Add the sums of tiles to gradients of array elements that a rule reads once per head."""
        if not self.variant.contributions:
            return
        problem = self.problem
        heads = problem.lead[-1] if problem.lead else 1
        flat = np.arange(math.prod(problem.lead))
        leaves = {"batch": flat // heads, "head": flat % heads}
        _, _, _, arrays = self.expressions
        totals = sums.sum(axis=1, dtype=np.float64)
        for n, contribution in enumerate(self.variant.contributions):
            if contribution.target is None:
                index = [evaluate(Formula(i, arrays), leaves) for i in contribution.load.args]
                total = found[contribution.load.array or 0].astype(np.float64)
                add_at(total, index, totals[:, n])
                found[contribution.load.array or 0][...] = total

    @cached_property
    def work(self) -> int:
        """Multiply-adds of all tiles; tiles on the diagonal count in full."""
        problem, rules = self.problem, self.problem.rules
        pairs = 0
        for first, rows, shift, origin, keys in self.tiles:
            position = first + shift - origin
            stop = keys if rules.high is None else min(max(position + rows + rules.high, 0), keys)
            begin = problem.first_key - origin
            begin = begin if rules.low is None else max(begin, position + rules.low)
            start = min(max(begin, 0), stop)
            pairs += rows * (stop - start)
        heads = self.chains * (self.group if self.head is None else 1)
        return int(3 * pairs * heads * (problem.query_dim + problem.value_dim))

    @cached_property
    def scratch_layout(self) -> tuple[dict[str, int], int]:
        """Offsets in a thread's scratch memory, and its size."""
        problem, tile = self.problem, self.spec.tile
        size = tile.element.bytes
        query_row, value_row = padded(problem.query_dim) * size, padded(problem.value_dim) * size
        return scratch_offsets(
            {
                "at_softmax": 2 * tile.row,
                "at_unused": tile.row,
                "at_gains": len(self.variant.buffered) * GRADIENT_BLOCK * tile.row,
                "at_diagonals": (tile.queries + GRADIENT_BLOCK) * size,
                "at_place": 8 * len(PLACE),
                "at_sums": max(1, len(self.variant.contributions)) * tile.row,
                "at_seen": GRADIENT_BLOCK * tile.vectors * SEEN_BYTES,
                "at_key_rows": key_rows_bytes(problem, tile),
                "at_scores": (GRADIENT_BLOCK + 2 * max(tile.keys)) * tile.row,
                "at_d_scores": (GRADIENT_BLOCK + 2 * max(tile.keys)) * tile.row,
                "at_query": tile.queries * query_row,
                "at_d_output_columns": tile.queries * value_row,
                "at_query_rows": tile.queries * query_row,
                "at_d_query": tile.queries * query_row,
                "at_output_rows": tile.queries * value_row,
                "at_d_output_rows": tile.queries * value_row,
                "at_keys": GRADIENT_BLOCK * query_row,
                "at_values": GRADIENT_BLOCK * value_row,
            }
        )

    def template(self, threads: int) -> Template:
        """The call table for a number of threads, written on first use."""
        known = self.templates.get(threads)
        if known is None:
            known = self.templates[threads] = self.write_template(threads)
        return known

    @cached_property
    def templates(self) -> dict[int, Template]:
        """Call tables by number of threads."""
        return {}

    def write_template(self, threads: int) -> Template:
        """The call table with operand addresses 0."""
        problem, rules = self.problem, self.problem.rules
        walked, heads = problem.axes, problem.lead[-1] if problem.lead else 1
        _, _, constants, arrays = self.expressions
        kinds, tile_table = self.kinds, self.tile_table
        operands = {"query": problem.query, "key": problem.key, "value": problem.value, "output": problem.output}
        operands["d_output"] = self.d_output
        steps = {name: operand.lead for name, operand in operands.items()} | self.gradient_steps()
        axes = [n for n, axis in enumerate(walked) if axis != 1]
        fields = dict.fromkeys(FIELDS, 0) | {
            "queries": problem.queries,
            "keys": problem.keys,
            "query_dim": problem.query_dim,
            "value_dim": problem.value_dim,
            "low": -NO_EDGE if rules.low is None else rules.low,
            "high": problem.queries + problem.keys if rules.high is None else rules.high,
            "first_key": problem.first_key,
            "heads": heads,
            "parameters": len(FIELDS) + len(AXIS) * len(axes),
            "tiles": len(tile_table),
            "tile_table": tile_table.ctypes.data,
            **block_fields(kinds, self.first_block),
            "group": self.group,
            "chains": 1 if self.in_one_chain else self.chains,
            "chain": len(tile_table) * self.group * (self.chains if self.in_one_chain else 1),
            "together": self.together(threads),
            "serial": int(bool(self.scattered)),
            "scale": bits(problem.scale),
            "give_way": yield_address(),
            "d_query_row": problem.query_dim * np.dtype(self.d_query_dtype).itemsize,
            **{f"{name}_row": operand.row for name, operand in operands.items()},
            **{f"{name}_element": operand.element for name, operand in operands.items()},
            **self.scratch_layout[0],
            "axes": len(axes),
        }
        numbers = [fields[name] for name in FIELDS]
        for axis in axes:
            numbers += [walked[axis], *(steps[name][axis] for name in AXIS[1:])]
        numbers += [bits(constant) for constant in constants]
        address_fields = []
        for array in arrays:
            numbers += array_parameters(array.ctypes.data, array.shape, array.strides)
        for shape in (arrays[number].shape for number in self.scattered):
            address_fields.append(len(numbers))
            numbers += array_parameters(0, shape, dense_strides(shape, np.dtype(problem.computed)))
        return Template(tuple(numbers), tuple(address_fields), (tile_table, kinds, *arrays))

    def together(self, threads: int) -> int:
        """How many chains take turns."""
        return 1 if self.in_one_chain or threads == 1 else min(TURNS * threads, self.chains)

    @property
    def held_bytes(self) -> int:
        """Bytes of the rules' arrays, of the tile and block tables, and of the documents they were made from."""
        _, _, _, arrays = self.expressions
        kinds = () if self.kinds is None else (self.kinds,)
        return sum(int(x.nbytes) for x in (self.tile_table, *arrays, *kinds)) + SPAN_BYTES * len(
            self.problem.rules.spans
        )

    @property
    def first_block(self) -> int:
        """Where the table of block kinds begins; packed documents count blocks of their own."""
        return 0 if self.problem.rules.packed else self.problem.first_key // GRADIENT_BLOCK

    @cached_property
    def kinds(self) -> Array | None:
        """Whether each block of a tile is full, empty or partly masked, as far as a fused mask tells."""
        problem = self.problem
        return problem.rules.kinds(
            self.tiles,
            GRADIENT_BLOCK,
            math.prod(problem.lead[:-1]),
            problem.lead[-1] if problem.lead else 1,
            self.first_block,
        )

    @cached_property
    def tile_table(self) -> Array:
        """The tiles as the kernel reads them."""
        return np.array(self.tiles, np.int64).reshape(-1, 5)

    @cached_property
    def expressions(self) -> Any:
        """The rules as expressions, and the constants and arrays that these refer to by number."""
        return self.problem.rules.expressions

    @property
    def in_one_chain(self) -> bool:
        """Whether all tasks form one chain, because pairs of two heads may add to the same element."""
        lead, arrays = self.problem.lead, self.expressions[3]
        counts = {"batch": math.prod(lead[:-1]), "head": lead[-1] if lead else 1}
        loads = [contribution.load for contribution in self.variant.contributions if contribution.target is not None]
        return not all(
            heads_are_apart(name, count, [load.args for load in loads if load.array == number], arrays[number].shape)
            for number in self.scattered
            for name, count in counts.items()
            if count > 1
        )

    def gradient_steps(self) -> dict[str, tuple[int, ...]]:
        """Byte strides of the leading axes of the gradients."""
        problem = self.problem
        shape = (*problem.axes, problem.queries, problem.query_dim)
        steps = {"d_query": dense_strides(shape, np.dtype(self.d_query_dtype))[:-2]}
        for name, dim in (("d_key", problem.query_dim), ("d_value", problem.value_dim)):
            strides = dense_strides((*self.key_axes, self.keys, padded(dim)), np.dtype(problem.computed))[:-2]
            steps[name] = (*strides, 0) if self.shared else strides
        return steps


def heads_are_apart(name: str, count: int, indices: Sequence[tuple[Expression, ...]], shape: tuple[int, ...]) -> bool:
    """Whether all loads index one axis of an array by head (or batch), so heads never share an element."""
    return any(
        size >= count and all(index[axis].op == name for index in indices)  # indices past the end read the last one
        for axis, size in enumerate(shape)
    )


def scatter_of(load: Expression, array: Array, keys: int) -> Literal["row", "diagonal", "element"]:
    """Which elements the pairs of a tile read: a row of the array, a diagonal, or any."""
    *others, last = load.args
    elsewhere = frozenset[str]().union(*(depends(index) for index in others))
    by_query = not elsewhere <= PER_HEAD and not elsewhere & {"key", "score"}
    if last.op == "key" and array.shape[-1] >= keys and by_query:
        return "row"
    return "diagonal" if depends(rewrite(load, without_distance)) <= PER_HEAD else "element"


def without_distance(e: Expression) -> Expression | None:
    """Replace the distance between query and key by a constant, to see which other leaves an expression reads."""
    distance = e.op == "sub" and {a.op for a in e.args} == {"query", "key"}
    return Expression("constant", "int", value=0) if distance else None


@cache
def yield_address() -> int:
    """The address of the operating system's yield function."""
    library = ctypes.CDLL("kernel32") if os.name == "nt" else ctypes.CDLL(None)
    function = library.SwitchToThread if os.name == "nt" else library.sched_yield
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def kinds_of(arrays: Sequence[Array]) -> tuple[tuple[str, int], ...]:
    """Dtype and number of axes of each array, as a kernel needs them."""
    return tuple((array.dtype.name, array.ndim) for array in arrays)


def float_arrays(arrays: Sequence[Array]) -> tuple[int, ...]:
    """The numbers of the arrays that can have a gradient."""
    return tuple(n for n, array in enumerate(arrays) if is_float(array))
