"""Gradients of attention as users ask for them: `attend(...).backward(d_out)`.

Responsible for what is checked, and how gradients come back to their operands' shapes. Meaning: `definition.gradient`;
the kernel's table and memory: `launch`.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from clearhead.arrays import Array
from clearhead.definition.gradient import Gradients, reduced, sink_weights
from clearhead.engine.bounded_cache import BoundedCache
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
    """Gradients of a call from those of its output and log-sum-exp."""
    d_output, d_sums = as_array(d_out, "d_out", GIVE_D_OUT), None
    check(d_output, residuals)
    if d_lse is not None:
        d_sums = checked_lse(as_array(d_lse, "d_lse"), lse)
    launch = launch_of(residuals, d_output, rules=rules)
    threads = residuals.threads or allowed()
    q, k, v, _ = residuals.operands
    operands = (q, k, v, residuals.output)
    d_query, d_key, d_value, found = launch.run(operands, np.ascontiguousarray(lse), d_output, d_sums, threads)
    lead = keys_lead(launch)
    d_key, d_value = (reduced(x.reshape(*lead, *x.shape[-2:]), y.shape) for x, y in ((d_key, k), (d_value, v)))
    return Gradients(
        q=rounded(reduced(d_query, q.shape), q.dtype),
        k=rounded(d_key, k.dtype),
        v=rounded(d_value, v.dtype),
        sink=sink_gradient(residuals, lse, d_output, d_sums),
        rules=by_rule(residuals.rules.score, found) if rules else (),
    )


def launch_of(residuals: Residuals, d_output: Array, *, rules: bool) -> BackwardLaunch:
    """The launch of a call like this one, prepared at the first; `rules` if the rules' arrays want gradients too."""
    (q, k, v, _), own = residuals.operands, residuals.rules
    layouts = ((x.shape, x.strides, x.dtype) for x in (q, k, v, residuals.output, d_output))
    score = flattened_rules(own.score) if isinstance(own.score, list) else own.score
    sink = None if own.sink is None else (own.sink.shape, own.sink.dtype)
    key = (*layouts, own.mask, score, own.scale, sink, rules, target())
    try:
        launch = launches.get(key)
    except TypeError:  # a scale without a hash
        return prepared(residuals, d_output, rules=rules)
    if launch is None:
        launch = prepared(residuals, d_output, rules=rules)
        launches.keep(key, launch, launch.held_bytes)
    return launch


def prepared(residuals: Residuals, d_output: Array, *, rules: bool) -> BackwardLaunch:
    """A call's launch."""
    problem = residuals.problem
    arrays = problem.rules.score.arrays if problem.rules.score else ()
    numbers = float_arrays(arrays) if rules else ()
    return BackwardLaunch(problem, walked(problem, d_output), numbers, share(problem, *residuals.operands[1:3]))


def share(problem: Problem, *operands: Array) -> bool:
    """Whether heads share keys and values by their shapes; what was expanded (stride 0) has a gradient for each."""
    grouped = len(problem.axes) > len(problem.lead)
    return bool(problem.lead) and (grouped or all(x.ndim < 3 or x.shape[-3] == 1 for x in operands))


def check(d_output: Array, residuals: Residuals) -> None:
    """The output's gradient has its shape and dtype."""
    shape, dtype = residuals.output.shape, residuals.operands.q.dtype
    if d_output.shape != shape:
        raise ShapeError(f"d_out has shape {d_output.shape}, the output {shape}: pass one of equal shape.")
    if d_output.dtype != dtype:
        raise DtypeError(f"d_out has dtype {d_output.dtype}, the output {dtype}: convert it.")


def checked_lse(d_lse: Array, lse: Array) -> Array:
    """The log-sum-exp's gradient, one number a query."""
    if d_lse.shape != lse.shape:
        raise ShapeError(f"d_lse has shape {d_lse.shape}, the log-sum-exp {lse.shape}: pass one of equal shape.")
    if d_lse.dtype.kind != "f":
        raise DtypeError(f"d_lse has dtype {d_lse.dtype}: pass {lse.dtype}.")
    return np.ascontiguousarray(d_lse, lse.dtype)


def walked(problem: Problem, x: Array) -> Operand:
    """An array of the output's shape as the kernel walks it, grouped heads on an axis of their own."""
    steps = list(x.strides[:-2])
    if len(problem.axes) > len(problem.lead):
        steps = [*steps[:-1], steps[-1] * problem.axes[-1], steps[-1]]
    return Operand(tuple(steps), x.strides[-2], x.strides[-1])


def keys_lead(launch: BackwardLaunch) -> tuple[int, ...]:
    """The leading axes of the keys' gradient, heads that share one key head counted once."""
    lead = launch.problem.lead
    return (*lead[:-1], launch.own_axes[-1] if len(launch.own_axes) == len(lead) else 1) if lead else ()


def sink_gradient(residuals: Residuals, lse: Array, d_output: Array, d_lse: Array | None) -> Array | None:
    """−Σ exp(sink − LSE) · (dO·O − dLSE), in float64."""
    if residuals.rules.sink is None:
        return None
    with np.errstate(all="ignore"):
        delta = np.einsum("...d,...d->...", d_output, residuals.output, dtype=np.float64)
        delta[sees_nothing(residuals, lse)] = 0  # whatever dO is
        if d_lse is not None:
            delta -= d_lse
        share = sink_weights(spread(residuals.rules.sink, lse), lse.astype(np.float64)) * delta
        return rounded(reduced(-share.sum(-1), residuals.rules.sink.shape), residuals.rules.sink.dtype)


def sees_nothing(residuals: Residuals, lse: Array) -> Array:
    """Which queries have no part in the output: the sink alone is in their sum."""
    alone: Array = (lse == spread(residuals.rules.sink, lse)) & ~residuals.output.any(-1)
    return alone


def spread(sink: Array | None, lse: Array) -> Array:
    """The sink of each query's head."""
    numbers = np.asarray(-np.inf if sink is None else sink, lse.dtype)
    return np.broadcast_to(numbers, lse.shape[:-1])[..., None]


def by_rule(score: ScoreLike, found: dict[int, Array]) -> tuple[tuple[Array, ...], ...]:
    """The arrays' gradients, rule by rule; their numbers run through all rules."""
    result, first = [], 0
    for rule in as_rules(score):
        arrays = rule.formula.arrays
        numbers = range(first, first + len(arrays))
        own = (rounded(found[n], a.dtype) for n, a in zip(numbers, arrays, strict=True) if n in found)
        result.append(tuple(own))
        first += len(arrays)
    return tuple(result)


def rounded(gradient: Array, dtype: np.dtype[Any]) -> Array:
    """A gradient in its operand's dtype; ∞ where that cannot hold it."""
    with np.errstate(over="ignore", invalid="ignore"):
        return gradient.astype(dtype, copy=False)


def unknown(what: str) -> InputError:
    """Why some results have no gradients."""
    return InputError(f"{what} has no gradients: call attend(q, k, v) on the arrays themselves.")
