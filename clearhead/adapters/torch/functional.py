"""The operators' derivatives in both modes as autograd functions, for autograd and torch.func.

Responsible for expressing derivatives of operators by other operators. For F(x) = ⟨d_output, output⟩ + ⟨d_lse, lse⟩
with operands x, `BackwardFunction` is the gradient and `TangentFunction` the derivative of output and LSE along a
direction t. `SecondFunction` is the derivative of these and of the gradient, which is also the derivative of
⟨gradient, t⟩ by (d_output, d_lse) and by x. `reference` provides higher orders. All take (rule name, scale, …, query,
key, value, sink, *tables), some a direction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd.function import _SingleLevelFunction

from clearhead.adapters.torch import dispatch
from clearhead.adapters.torch.card import wants_gradients
from clearhead.adapters.torch.reference import attention_formula
from clearhead.adapters.torch.rule_names import rule_named

Tensors = tuple[Any, ...]


class Differentiable(torch.autograd.Function):
    """A function of (rule, scale, *tensors) that saves all tensors for derivatives."""

    operator: Any  # the operator whose derivatives it has
    batched: Any  # makes the operator's vmap rule from a function that calls it
    before = 0  # number of tensors before the query
    moves = False  # whether the last tensors are a direction
    alone: Any  # the same function for a single transform level

    def __init_subclass__(cls) -> None:
        """Create the function for a single transform level, whose apply is 10 µs faster per call."""
        parts = {name: staticmethod(getattr(cls, name)) for name in ("forward", "setup_context", "backward", "jvp")}
        cls.alone = type(cls.__name__, (_SingleLevelFunction,), parts)

    @classmethod
    def flat(cls, operands: Tensors) -> Tensors:
        """The function's arguments, from the operator's."""
        first, (query, key, value, tables, sink, rule, scale, *along) = operands[: cls.before], operands[cls.before :]
        return rule, scale, *first, query, key, value, sink, *tables, *(along[0] if along else ())

    @classmethod
    def arranged(cls, inputs: Tensors) -> Tensors:
        """The operator's arguments, from the function's."""
        rule, scale, *tensors = inputs
        first, x = tensors[: cls.before], tensors[cls.before :]
        x, *along = map(list, halves(x)) if cls.moves else (x,)
        query, key, value, sink, *tables = x
        return *first, query, key, value, tables, sink, rule, scale, *along

    @classmethod
    def call(cls, *inputs: Any) -> Any:
        """Call the function, or the operator if something needs operators."""
        return cls.operator(*cls.arranged(inputs)) if dispatch.needs_operators() else cls.apply(*inputs)

    @classmethod
    def apply(cls, *inputs: Any) -> Any:
        """Apply the function, or without transforms its single-level version."""
        above: Any = super() if torch._C._are_functorch_transforms_active() else cls.alone
        return above.apply(*inputs)

    @classmethod
    def dispatched(cls, *operands: Any) -> Any:
        """The operator's autograd kernel, for one transform level."""
        with enable_single_level_autograd_function():
            results = cls.alone.apply(*cls.flat(operands))
        return results if len(results) == 2 else list(results)

    @classmethod
    def vmap(cls, info: Any, dims: Tensors, *inputs: Any) -> Any:
        """Apply the operator's vmap rule."""

        def one(*operands: Any) -> Any:
            return cls.call(*cls.flat(operands))

        results, axes = cls.batched(one)(info, cls.arranged(dims), *cls.arranged(inputs))
        return tuple(results), tuple(axes)

    @staticmethod
    def setup_context(ctx: Any, inputs: Tensors, output: Any) -> None:
        """Save the operands."""
        save_tensors(ctx, inputs, ())


def save_tensors(ctx: Any, inputs: Tensors, results: Tensors) -> None:
    """Save rule, scale and tensors for both modes."""
    ctx.rule, ctx.scale, *tensors = inputs
    ctx.save_for_backward(*results, *tensors)
    ctx.save_for_forward(*results, *tensors)


class ForwardFunction(Differentiable):
    """Output and LSE."""

    @classmethod
    def dispatched(cls, *operands: Any) -> Any:
        """The operator's autograd kernel; a compiled call with gradients that nothing computes fails here."""
        wants_gradients(*operands[:5])
        return super().dispatched(*operands)

    @staticmethod
    def forward(*inputs: Any) -> Any:
        """Run the operator."""
        return dispatch.call_forward(*ForwardFunction.arranged(inputs))

    @staticmethod
    def setup_context(ctx: Any, inputs: Tensors, output: Any) -> None:
        """Save the operands and results."""
        save_tensors(ctx, inputs, output)

    @staticmethod
    def backward(ctx: Any, d_output: torch.Tensor, d_lse: torch.Tensor) -> Tensors:
        """The gradient."""
        output, lse, *x = ctx.saved_tensors
        inputs = ctx.rule, ctx.scale, d_output, d_lse, output, lse, *x
        differentiable = torch.is_grad_enabled() or dispatch.needs_operators()
        gradients = BackwardFunction.call(*inputs) if differentiable else BackwardFunction.forward(*inputs)
        return None, None, *float_gradients(gradients, x)

    @staticmethod
    def jvp(ctx: Any, _rule: None, _scale: None, *t: Any) -> Any:
        """Tangents of both results."""
        return TangentFunction.call(ctx.rule, ctx.scale, *ctx.saved_tensors, *t)


class BackwardFunction(Differentiable):
    """Gradients of the operands, from those of output and LSE."""

    before = 4

    @staticmethod
    def forward(*inputs: Any) -> Any:
        """Run the operator."""
        return tuple(dispatch.call_backward(*BackwardFunction.arranged(inputs)))

    @staticmethod
    def backward(ctx: Any, *t: Any) -> Tensors:
        """The second derivative."""
        d_output, d_lse, output, lse, *x = ctx.saved_tensors
        t = float_gradients(t, x)
        derivatives = SecondFunction.call(ctx.rule, ctx.scale, d_output, d_lse, output, lse, *x, *t)
        return None, None, *derivatives[:2], None, None, *float_gradients(derivatives[2:], x)

    @staticmethod
    def jvp(ctx: Any, _rule: None, _scale: None, t_d_output: Any, t_d_lse: Any, _o: Any, _l: Any, *t: Any) -> Any:
        """The second derivative along the operands, plus the gradient for directions of d_output and d_lse."""
        d_output, d_lse, output, lse, *x = ctx.saved_tensors
        _, _, *moved = SecondFunction.call(ctx.rule, ctx.scale, d_output, d_lse, output, lse, *x, *t)
        if t_d_output is None and t_d_lse is None:
            return tuple(moved)
        t_d_output, t_d_lse = direction_or_zeros(t_d_output, d_output), direction_or_zeros(t_d_lse, d_lse)
        along_results = BackwardFunction.call(ctx.rule, ctx.scale, t_d_output, t_d_lse, output, lse, *x)
        return tuple(a + b for a, b in zip(moved, along_results, strict=True))


class TangentFunction(Differentiable):
    """Derivatives of output and LSE along a direction; takes (rule, scale, output, lse, *operands, *directions)."""

    before, moves = 2, True

    @staticmethod
    def forward(*inputs: Any) -> Any:
        """Run the operator."""
        return dispatch.call_below_autograd(dispatch.tangent_operator, *TangentFunction.arranged(inputs))

    @staticmethod
    def backward(ctx: Any, d_output: torch.Tensor, d_lse: torch.Tensor) -> Tensors:
        """The second derivative for the operands, the gradient for the direction."""
        output, lse, *both = ctx.saved_tensors
        x, t = halves(both)
        _, _, *moved = SecondFunction.call(ctx.rule, ctx.scale, d_output, d_lse, output, lse, *x, *t)
        along = BackwardFunction.call(ctx.rule, ctx.scale, d_output, d_lse, output, lse, *x)
        return None, None, None, None, *float_gradients(moved, x), *float_gradients(along, t)

    @staticmethod
    def jvp(ctx: Any, _rule: None, _scale: None, _o: Any, _l: Any, *t: Any) -> Any:
        """Differentiate the formula."""
        _, _, *both = ctx.saved_tensors
        return moved_formula(tangent_formula(ctx.rule, ctx.scale), both, t)


class SecondFunction(Differentiable):
    """Derivatives of output, LSE and gradients along a direction.

    Takes (rule, scale, d_output, d_lse, output, lse, *operands, *directions).
    """

    before, moves = 4, True

    @staticmethod
    def forward(*inputs: Any) -> Any:
        """Run the operator."""
        return tuple(dispatch.call_below_autograd(dispatch.second_operator, *SecondFunction.arranged(inputs)))

    @staticmethod
    def backward(ctx: Any, *d: Any) -> Tensors:
        """Differentiate the formula."""
        d_output, d_lse, _, _, *both = ctx.saved_tensors
        gradients = pulled_formula(second_formula(ctx.rule, ctx.scale), [d_output, d_lse, *both], d)
        return None, None, *gradients[:2], None, None, *gradients[2:]

    @staticmethod
    def jvp(ctx: Any, _rule: None, _scale: None, t_d_output: Any, t_d_lse: Any, _o: Any, _l: Any, *t: Any) -> Any:
        """Differentiate the formula."""
        d_output, d_lse, _, _, *both = ctx.saved_tensors
        formula = second_formula(ctx.rule, ctx.scale)
        return moved_formula(formula, [d_output, d_lse, *both], (t_d_output, t_d_lse, *t))


# Higher orders: the same functions as torch operations


def tangent_formula(rule: str, scale: float) -> Callable[..., Any]:
    """`TangentFunction` as a formula of (*operands, *directions)."""

    def function(*both: Any) -> Any:
        x, t = halves(both)
        return moved_formula(output_formula(rule, scale), x, t)

    return function


def second_formula(rule: str, scale: float) -> Callable[..., Any]:
    """`SecondFunction` as a formula of (d_output, d_lse, *operands, *directions)."""

    def function(d_output: Any, d_lse: Any, *both: Any) -> Any:
        x, t = halves(both)

        def gradients(d_output: Any, d_lse: Any, *x: Any) -> Any:
            pulled = pulled_formula(output_formula(rule, scale), x, (d_output, d_lse))
            return tuple(missing_gradient(d_output) if g is None else g for g in pulled)

        directions = tuple(
            direction_or_zeros(t_x, x_) if is_float_tensor(x_) else missing_gradient(d_output)
            for t_x, x_ in zip(t, x, strict=True)
        )
        pulled = pulled_formula(gradients, (d_output, d_lse, *x), directions)
        return tuple(missing_gradient(d_output) if g is None else g for g in pulled)

    return function


def output_formula(rule: str, scale: float) -> Callable[..., Any]:
    """`ForwardFunction` as a formula of the operands."""

    def function(query: Any, key: Any, value: Any, sink: Any, *tables: Any) -> Any:
        return attention_formula(query, key, value, tables, sink, rule_named(rule), scale)

    return function


def moved_formula(function: Callable[..., Any], x: Sequence[Any], t: Sequence[Any]) -> Any:
    """Directional derivatives of a function's results along its float tensors."""
    floats = [n for n, part in enumerate(x) if is_float_tensor(part)]
    return torch.func.jvp(
        with_others_fixed(function, x, floats),
        tuple(x[n] for n in floats),
        tuple(direction_or_zeros(t[n], x[n]) for n in floats),
    )[1]


def pulled_formula(function: Callable[..., Any], x: Sequence[Any], d: Sequence[Any]) -> list[Any]:
    """A function's gradients by its tensors; None for tensors without one."""
    floats = [n for n, part in enumerate(x) if is_float_tensor(part)]
    gradients = dict(
        zip(
            floats,
            torch.func.vjp(with_others_fixed(function, x, floats), *(x[n] for n in floats))[1](tuple(d)),
            strict=True,
        )
    )
    return [gradients.get(n) for n in range(len(x))]


def with_others_fixed(function: Callable[..., Any], x: Sequence[Any], floats: Sequence[int]) -> Callable[..., Any]:
    """The function of some of its arguments, with the others fixed."""

    def partial_function(*values: Any) -> Any:
        arguments = list(x)
        for n, part in zip(floats, values, strict=True):
            arguments[n] = part
        return function(*arguments)

    return partial_function


def halves(both: Sequence[Any]) -> tuple[Tensors, Tensors]:
    """Split operands from their directions."""
    middle = len(both) // 2
    return tuple(both[:middle]), tuple(both[middle:])


def is_float_tensor(x: Any) -> bool:
    """Whether something is a float tensor, which can have a gradient."""
    return isinstance(x, torch.Tensor) and x.is_floating_point()


def float_gradients(gradients: Sequence[Any], x: Sequence[Any]) -> Tensors:
    """Gradients of the float operands, None for others."""
    return tuple(g if is_float_tensor(operand) else None for g, operand in zip(gradients, x, strict=True))


def direction_or_zeros(t: Any, x: torch.Tensor) -> torch.Tensor:
    """A direction, with None as zeros."""
    return torch.zeros_like(x) if t is None else t


def missing_gradient(like: torch.Tensor) -> torch.Tensor:
    """The stand-in for a missing gradient."""
    return like.new_empty(0)
