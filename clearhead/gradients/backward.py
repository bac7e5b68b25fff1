"""Gradients of attention: `attend(...).backward(d_out)`.

Responsible for checking arguments and for reducing gradients to the shapes of their operands. `definition.gradient`
defines their meaning, `launch` writes the kernel's call table and sizes its memory.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from clearhead.arrays import Array
from clearhead.definition.gradient import Gradients, reduced, sink_weights
from clearhead.engine.bounded_cache import BoundedCache
from clearhead.engine.narrowing import rounded
from clearhead.engine.problem import Operand, Problem, as_array
from clearhead.errors import DtypeError, InputError, ShapeError
from clearhead.gradients.launch import BackwardLaunch, float_arrays
from clearhead.gradients.residuals import Residuals
from clearhead.machine.target import target
from clearhead.machine.threads import allowed
from clearhead.rules.scores import ScoreLike, as_rules, flattened_rules

GIVE_D_OUT = "give the gradient of the output, an array of its shape"

launches: BoundedCache[tuple[Any, ...], BackwardLaunch] = BoundedCache(most=256, most_large=0)


def backward(
    residuals: Residuals, lse: Array, d_out: npt.ArrayLike, d_lse: npt.ArrayLike | None, *, rules: bool
) -> Gradients:
    """Gradients of a call, from the gradients of its output and log-sum-exp."""
    d_output, d_sums = as_array(d_out, "d_out", GIVE_D_OUT), None
    check_d_out(d_output, residuals.output.shape, residuals.operands.q.dtype)
    if d_lse is not None:
        d_sums = checked_d_lse(as_array(d_lse, "d_lse"), lse)
    launch = backward_launch_for(residuals, d_output, rules=rules)
    threads = residuals.threads or allowed()
    q, k, v, _ = residuals.operands
    operands = (q, k, v, residuals.output)
    sums = launch.zeros()
    rule_gradients = launch.run(operands, np.ascontiguousarray(lse), d_output, d_sums, threads, sums)
    lead = keys_lead(launch)
    return Gradients(
        q=gradient_of(sums.query, q.shape, q.dtype, threads),
        k=gradient_of(sums.key.reshape(*lead, *sums.key.shape[-2:]), k.shape, k.dtype, threads),
        v=gradient_of(sums.value.reshape(*lead, *sums.value.shape[-2:]), v.shape, v.dtype, threads),
        sink=sink_gradient(residuals, lse, d_output, d_sums),
        rules=gradients_by_rule(residuals.rules.score, rule_gradients, threads) if rules else (),
    )


def backward_launch_for(residuals: Residuals, d_output: Array, *, rules: bool) -> BackwardLaunch:
    """The launch for a call, prepared at the first call of its kind; `rules` adds gradients of the rules' arrays."""
    (q, k, v, _), rule_values = residuals.operands, residuals.rules
    layouts = ((x.shape, x.strides, x.dtype) for x in (q, k, v, residuals.output, d_output))
    score = flattened_rules(rule_values.score) if isinstance(rule_values.score, list) else rule_values.score
    sink = None if rule_values.sink is None else (rule_values.sink.shape, rule_values.sink.dtype)
    key = (*layouts, rule_values.mask, score, rule_values.scale, sink, rules, target())
    try:
        launch = launches.get(key)
    except TypeError:  # the scale is not hashable
        return prepare_backward(residuals, d_output, rules=rules)
    if launch is None:
        launch = prepare_backward(residuals, d_output, rules=rules)
        launches.keep(key, launch, launch.held_bytes)
    return launch


def prepare_backward(residuals: Residuals, d_output: Array, *, rules: bool) -> BackwardLaunch:
    """Prepare the launch of a call."""
    problem = residuals.problem
    arrays = problem.rules.score.arrays if problem.rules.score else ()
    numbers = float_arrays(arrays) if rules else ()
    return BackwardLaunch(problem, walked_strides(problem, d_output), numbers, share(problem, *residuals.operands[1:3]))


def share(problem: Problem, *operands: Array) -> bool:
    """Whether heads share keys and values by shape. Expanded arrays (stride 0) get one gradient per head."""
    grouped = len(problem.axes) > len(problem.lead)
    return bool(problem.lead) and (grouped or all(x.ndim < 3 or x.shape[-3] == 1 for x in operands))


def check_d_out(d_output: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Check that d_out has the shape and dtype of the output."""
    if d_output.shape != shape:
        raise ShapeError(f"d_out has shape {d_output.shape}, the output {shape}: pass one of equal shape.")
    if d_output.dtype != dtype:
        raise DtypeError(f"d_out has dtype {d_output.dtype}, the output {dtype}: convert it.")


def checked_d_lse(d_lse: Array, lse: Array) -> Array:
    """Check d_lse, one number per query, and make it contiguous."""
    if d_lse.shape != lse.shape:
        raise ShapeError(f"d_lse has shape {d_lse.shape}, the log-sum-exp {lse.shape}: pass one of equal shape.")
    if d_lse.dtype.kind != "f":
        raise DtypeError(f"d_lse has dtype {d_lse.dtype}: pass {lse.dtype}.")
    return np.ascontiguousarray(d_lse, lse.dtype)


def walked_strides(problem: Problem, x: Array, *, one_of_group: bool = False) -> Operand:
    """Strides of an array of the output's shape, as the kernel walks it: grouped heads on a separate axis.

    Of an array with one head of each group, that axis is as long, but stays where it is.
    """
    steps = [0 if size == 1 else step for size, step in zip(x.shape[:-2], x.strides[:-2], strict=True)]
    steps = [0] * (len(problem.lead) - len(steps)) + steps
    if len(problem.axes) > len(problem.lead):
        steps = [*steps, 0] if one_of_group else [*steps[:-1], steps[-1] * problem.axes[-1], steps[-1]]
    return Operand(tuple(steps), x.strides[-2], x.strides[-1])


def keys_lead(launch: BackwardLaunch) -> tuple[int, ...]:
    """The leading axes of the keys' gradient, with one entry for all heads that share a key head."""
    lead = launch.problem.lead
    return (*lead[:-1], launch.key_axes[-1] if len(launch.key_axes) == len(lead) else 1) if lead else ()


def sink_gradient(residuals: Residuals, lse: Array, d_output: Array, d_lse: Array | None) -> Array | None:
    """−Σ exp(sink − LSE) · (dO·O − dLSE) over queries, in float64."""
    sink = residuals.rules.sink
    if sink is None:
        return None
    return summed_shares(sink_shares(sink, residuals.output, lse, d_output, d_lse), sink)


def sink_shares(sink: Array, output: Array, lse: Array, d_output: Array, d_lse: Array | None) -> Array:
    """exp(sink − LSE) · (dO·O − dLSE) of each query."""
    with np.errstate(all="ignore"):
        delta = np.einsum("...d,...d->...", d_output, output, dtype=np.float64)
        delta[sees_nothing(sink, output, lse)] = 0  # even if dO is NaN
        if d_lse is not None:
            delta -= d_lse
        shares: Array = sink_weights(sink_per_query(sink, lse), lse.astype(np.float64)) * delta
    return shares


def summed_shares(shares: Array, sink: Array) -> Array:
    """The sink's gradient from its shares of all queries."""
    with np.errstate(all="ignore"):
        return rounded(reduced(-shares.sum(-1), sink.shape), sink.dtype)


def sees_nothing(sink: Array | None, output: Array, lse: Array) -> Array:
    """Which queries see no key, so that only the sink is in their sum."""
    alone: Array = (lse == sink_per_query(sink, lse)) & ~output.any(-1)
    return alone


def sink_per_query(sink: Array | None, lse: Array) -> Array:
    """The sink of each head, broadcast to queries."""
    numbers = np.asarray(-np.inf if sink is None else sink, lse.dtype)
    return np.broadcast_to(numbers, lse.shape[:-1])[..., None]


def gradients_by_rule(score: ScoreLike, by_number: dict[int, Array], threads: int) -> tuple[tuple[Array, ...], ...]:
    """Gradients grouped by rule, from gradients by array number; arrays are numbered across all rules."""
    result, first = [], 0
    for rule in as_rules(score):
        arrays = rule.formula.arrays
        numbers = range(first, first + len(arrays))
        gradients = (
            rounded(by_number[n], a.dtype, threads) for n, a in zip(numbers, arrays, strict=True) if n in by_number
        )
        result.append(tuple(gradients))
        first += len(arrays)
    return tuple(result)


def gradient_of(sums: Array, shape: tuple[int, ...], dtype: np.dtype[Any], threads: int | None = None) -> Array:
    """An operand's gradient, from sums whose rows may be padded and whose heads may share the operand."""
    return rounded(reduced(sums[..., : shape[-1]], shape), dtype, threads)


def no_gradients(what: str) -> InputError:
    """The error for results that have no gradients."""
    return InputError(f"{what} has no gradients: call attend(q, k, v) on the arrays themselves.")
