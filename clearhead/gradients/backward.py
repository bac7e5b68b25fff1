"""Gradients of attention as users ask for them: `attend(...).backward(d_out)`.

Decides what is checked, what is kept from the forward pass (its operands, output and log-sum-exp), and how gradients
come back to their operands' shapes. Meaning: `definition.gradient`; plan and kernel: `gradient_plan`.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from clearhead.definition.gradient import Gradients, reduced, sink_weights
from clearhead.engine.launch_cache import LITTLE
from clearhead.engine.problem import Array, Operand, Problem, as_array, problem
from clearhead.errors import DtypeError, InputError, ShapeError
from clearhead.gradients.launch import Backward, float_arrays
from clearhead.machine.target import target
from clearhead.machine.threads import allowed
from clearhead.rules.masks import Mask
from clearhead.rules.scores import Rules, as_rules, in_order

__all__ = ["Gradients", "Kept", "backward"]

MOST_PLANS = 256
GIVE_D_OUT = "give the gradient of the output, an array of its shape"


@dataclass(frozen=True)
class Kept:
    """What the gradients need of a call."""

    q: Array
    k: Array
    v: Array
    mask: Mask
    score: Rules  # as traced for that call: what a function captured may have other names by now
    sink: Array | None
    scale: float | None
    threads: int | None
    wide: Array  # the output before it was rounded

    @property
    def asked(self) -> Problem:
        """The call as a problem; that no pair of it is at fault, it has shown itself."""
        rules: dict[str, Any] = {"mask": self.mask, "score": self.score, "sink": self.sink, "scale": self.scale}
        asked = problem(self.q, self.k, self.v, **rules, out=self.wide, wide=True)
        return replace(asked, rules=asked.rules.trusted)


def backward(kept: Kept, lse: Array, d_out: npt.ArrayLike, d_lse: npt.ArrayLike | None, rules: bool) -> Gradients:
    """Gradients of a call from those of its output and log-sum-exp."""
    d_output, given = as_array(d_out, "d_out", GIVE_D_OUT), None
    check(d_output, kept)
    if d_lse is not None:
        given = checked_lse(as_array(d_lse, "d_lse"), lse)
    plan = recall(kept, d_output, rules)
    threads = kept.threads or allowed()
    operands = (kept.q, kept.k, kept.v, kept.wide)
    d_query, d_key, d_value, found = plan.run(operands, np.ascontiguousarray(lse), d_output, given, threads)
    lead = keys_lead(plan)
    d_key, d_value = (
        reduced(x.reshape(*lead, *x.shape[-2:]), y.shape) for x, y in ((d_key, kept.k), (d_value, kept.v))
    )
    return Gradients(
        q=rounded(reduced(d_query, kept.q.shape), kept.q.dtype),
        k=rounded(d_key, kept.k.dtype),
        v=rounded(d_value, kept.v.dtype),
        sink=sink_gradient(kept, lse, d_output, given),
        rules=by_rule(kept.score, found) if rules else (),
    )


plans: dict[tuple[Any, ...], Backward] = {}


def recall(kept: Kept, d_output: Array, rules: bool) -> Backward:
    """The plan of a call like this one, made at the first; those whose rules hold much memory are made each time."""
    layouts = ((x.shape, x.strides, x.dtype) for x in (kept.q, kept.k, kept.v, kept.wide, d_output))
    score = in_order(kept.score) if isinstance(kept.score, list) else kept.score
    sink = None if kept.sink is None else (kept.sink.shape, kept.sink.dtype)
    key = (*layouts, kept.mask, score, kept.scale, sink, rules, target())
    try:
        known = plans.get(key)
    except TypeError:  # a scale without a hash
        return planned(kept, d_output, rules)
    if known is None:
        known = planned(kept, d_output, rules)
        if known.held <= LITTLE:
            if len(plans) >= MOST_PLANS:
                plans.clear()
            plans[key] = known
    return known


def planned(kept: Kept, d_output: Array, rules: bool) -> Backward:
    """A call's plan."""
    asked = kept.asked
    arrays = asked.rules.score.arrays if asked.rules.score else ()
    numbers = float_arrays(arrays) if rules else ()
    return Backward(asked, walked(asked, d_output), numbers, share(asked, kept.k, kept.v))


def share(asked: Problem, *operands: Array) -> bool:
    """Whether heads share keys and values by their shapes; what was expanded (stride 0) has a gradient for each."""
    grouped = len(asked.axes) > len(asked.lead)
    return bool(asked.lead) and (grouped or all(x.ndim < 3 or x.shape[-3] == 1 for x in operands))


def check(d_output: Array, kept: Kept) -> None:
    """The output's gradient has its shape and dtype."""
    shape, dtype = kept.wide.shape, kept.q.dtype
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


def walked(asked: Problem, x: Array) -> Operand:
    """An array of the output's shape as the kernel walks it, grouped heads on an axis of their own."""
    steps = list(x.strides[:-2])
    if len(asked.axes) > len(asked.lead):
        steps = [*steps[:-1], steps[-1] * asked.axes[-1], steps[-1]]
    return Operand(tuple(steps), x.strides[-2], x.strides[-1])


def keys_lead(planned: Backward) -> tuple[int, ...]:
    """The leading axes of the keys' gradient, heads that share one key head counted once."""
    lead = planned.asked.lead
    return (*lead[:-1], planned.own_axes[-1] if len(planned.own_axes) == len(lead) else 1) if lead else ()


def sink_gradient(kept: Kept, lse: Array, d_output: Array, d_lse: Array | None) -> Array | None:
    """−Σ exp(sink − LSE) · (dO·O − dLSE), in float64."""
    if kept.sink is None:
        return None
    with np.errstate(all="ignore"):
        delta = np.einsum("...d,...d->...", d_output, kept.wide, dtype=np.float64)
        delta[sees_nothing(kept, lse)] = 0  # whatever dO is
        if d_lse is not None:
            delta -= d_lse
        share = sink_weights(spread(kept.sink, lse), lse.astype(np.float64)) * delta
        return rounded(reduced(-share.sum(-1), kept.sink.shape), kept.sink.dtype)


def sees_nothing(kept: Kept, lse: Array) -> Array:
    """Which queries have no part in the output: the sink alone is in their sum."""
    alone: Array = (lse == spread(kept.sink, lse)) & ~kept.wide.any(-1)
    return alone


def spread(sink: Array | None, lse: Array) -> Array:
    """The sink of each query's head."""
    numbers = np.asarray(-np.inf if sink is None else sink, lse.dtype)
    return np.broadcast_to(numbers, lse.shape[:-1])[..., None]


def by_rule(score: Rules, found: dict[int, Array]) -> tuple[tuple[Array, ...], ...]:
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
