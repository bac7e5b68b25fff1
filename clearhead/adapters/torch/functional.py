"""The operators' derivatives, both ways, as autograd functions: what autograd and torch.func ask for.

Decides which derivative of which operator is another of them. Of F(x) = ⟨d_output, output⟩ + ⟨d_lse, lse⟩ with
operands x, `Backward` is the gradient, `Tangent` how output and LSE move along a direction t, and `Second` how they and
the gradient do: also the derivatives of ⟨gradient, t⟩ by (d_output, d_lse) and by x. What is beyond second order comes
from `reference`. All take (rule's name, scale, …, query, key, value, sink, *tables), and some then a direction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd.function import _SingleLevelFunction

from clearhead.adapters.torch import dispatch
from clearhead.adapters.torch.reference import attention_formula
from clearhead.adapters.torch.rule_names import rule_named

Tensors = tuple[Any, ...]


class Differentiable(torch.autograd.Function):
    """A function of tensors behind (rule, scale), all of which are kept for derivatives."""

    operator: Any  # whose derivatives it has
    batched: Any  # and its rule for vmap, of what calls it
    before = 0  # tensors that stand before the query
    moves = False  # whether a direction comes last
    alone: Any  # the same function, which torch's transforms leave alone

    def __init_subclass__(cls) -> None:
        """Make the same function for one level of transforms: its apply does less, too, which saves 10 µs a call."""
        parts = {name: staticmethod(getattr(cls, name)) for name in ("forward", "setup_context", "backward", "jvp")}
        cls.alone = type(cls.__name__, (_SingleLevelFunction,), parts)

    @classmethod
    def flat(cls, operands: Tensors) -> Tensors:
        """The function's arguments from the operator's."""
        first, (query, key, value, tables, sink, rule, scale, *along) = operands[: cls.before], operands[cls.before :]
        return rule, scale, *first, query, key, value, sink, *tables, *(along[0] if along else ())

    @classmethod
    def arranged(cls, inputs: Tensors) -> Tensors:
        """The operator's from the function's."""
        rule, scale, *tensors = inputs
        first, x = tensors[: cls.before], tensors[cls.before :]
        x, *along = map(list, halves(x)) if cls.moves else (x,)
        query, key, value, sink, *tables = x
        return *first, query, key, value, tables, sink, rule, scale, *along

    @classmethod
    def call(cls, *inputs: Any) -> Any:
        """The function, as the operator where something follows operators alone."""
        return cls.operator(*cls.arranged(inputs)) if dispatch.followed() else cls.apply(*inputs)

    @classmethod
    def apply(cls, *inputs: Any) -> Any:
        """As ever under transforms; without, alone."""
        above: Any = super() if torch._C._are_functorch_transforms_active() else cls.alone
        return above.apply(*inputs)

    @classmethod
    def dispatched(cls, *operands: Any) -> Any:
        """What torch's dispatcher calls to have an operator's derivatives at one level of transforms."""
        with enable_single_level_autograd_function():
            found = cls.alone.apply(*cls.flat(operands))
        return found if len(found) == 2 else list(found)

    @classmethod
    def vmap(cls, info: Any, dims: Tensors, *inputs: Any) -> Any:
        """By the operator's own rule."""

        def one(*operands: Any) -> Any:
            return cls.call(*cls.flat(operands))

        found, places = cls.batched(one)(info, cls.arranged(dims), *cls.arranged(inputs))
        return tuple(found), tuple(places)

    @staticmethod
    def setup_context(ctx: Any, inputs: Tensors, output: Any) -> None:
        """Keep the operands."""
        keep(ctx, inputs, ())


def keep(ctx: Any, inputs: Tensors, more: Tensors) -> None:
    """Keep rule, scale and tensors for the directions in which there will be derivatives."""
    ctx.rule, ctx.scale, *tensors = inputs
    ctx.save_for_backward(*more, *tensors)
    ctx.save_for_forward(*more, *tensors)


class Forward(Differentiable):
    """Output and LSE."""

    @staticmethod
    def forward(*inputs: Any) -> Any:
        """By the operator."""
        return dispatch.called(*Forward.arranged(inputs))

    @staticmethod
    def setup_context(ctx: Any, inputs: Tensors, output: Any) -> None:
        """Keep the results too."""
        keep(ctx, inputs, output)

    @staticmethod
    def backward(ctx: Any, d_output: torch.Tensor, d_lse: torch.Tensor) -> Tensors:
        """The gradient."""
        output, lse, *x = ctx.saved_tensors
        inputs = ctx.rule, ctx.scale, d_output, d_lse, output, lse, *x
        again = torch.is_grad_enabled() or dispatch.followed()
        found = Backward.call(*inputs) if again else Backward.forward(*inputs)
        return None, None, *smooth_only(found, x)

    @staticmethod
    def jvp(ctx: Any, _rule: None, _scale: None, *t: Any) -> Any:
        """How both move."""
        return Tangent.call(ctx.rule, ctx.scale, *ctx.saved_tensors, *t)


class Backward(Differentiable):
    """Gradients of the operands, from those of output and LSE."""

    before = 4

    @staticmethod
    def forward(*inputs: Any) -> Any:
        """By the operator."""
        return tuple(dispatch.called_backward(*Backward.arranged(inputs)))

    @staticmethod
    def backward(ctx: Any, *t: Any) -> Tensors:
        """The second derivative."""
        d_output, d_lse, output, lse, *x = ctx.saved_tensors
        t = smooth_only(t, x)
        found = Second.call(ctx.rule, ctx.scale, d_output, d_lse, output, lse, *x, *t)
        return None, None, *found[:2], None, None, *smooth_only(found[2:], x)

    @staticmethod
    def jvp(ctx: Any, _rule: None, _scale: None, t_d_output: Any, t_d_lse: Any, _o: Any, _l: Any, *t: Any) -> Any:
        """The second derivative along the operands, and the gradient itself along the results'."""
        d_output, d_lse, output, lse, *x = ctx.saved_tensors
        _, _, *moved = Second.call(ctx.rule, ctx.scale, d_output, d_lse, output, lse, *x, *t)
        if t_d_output is None and t_d_lse is None:
            return tuple(moved)
        t_d_output, t_d_lse = zero(t_d_output, d_output), zero(t_d_lse, d_lse)
        more = Backward.call(ctx.rule, ctx.scale, t_d_output, t_d_lse, output, lse, *x)
        return tuple(a + b for a, b in zip(moved, more, strict=True))


class Tangent(Differentiable):
    """How output and LSE move along a direction; takes (rule, scale, output, lse, *operands, *directions)."""

    before, moves = 2, True

    @staticmethod
    def forward(*inputs: Any) -> Any:
        """By the operator."""
        return dispatch.below(dispatch.tangent_operator, *Tangent.arranged(inputs))

    @staticmethod
    def backward(ctx: Any, d_output: torch.Tensor, d_lse: torch.Tensor) -> Tensors:
        """By the operands the second derivative, by the direction the gradient."""
        output, lse, *both = ctx.saved_tensors
        x, t = halves(both)
        _, _, *moved = Second.call(ctx.rule, ctx.scale, d_output, d_lse, output, lse, *x, *t)
        along = Backward.call(ctx.rule, ctx.scale, d_output, d_lse, output, lse, *x)
        return None, None, None, None, *smooth_only(moved, x), *smooth_only(along, t)

    @staticmethod
    def jvp(ctx: Any, _rule: None, _scale: None, _o: Any, _l: Any, *t: Any) -> Any:
        """By the formula."""
        _, _, *both = ctx.saved_tensors
        return moved_formula(tangent_formula(ctx.rule, ctx.scale), both, t)


class Second(Differentiable):
    """How output, LSE and gradients move; takes (rule, scale, d_output, d_lse, output, lse, *operands, *directions)."""

    before, moves = 4, True

    @staticmethod
    def forward(*inputs: Any) -> Any:
        """By the operator."""
        return tuple(dispatch.below(dispatch.second_operator, *Second.arranged(inputs)))

    @staticmethod
    def backward(ctx: Any, *d: Any) -> Tensors:
        """By the formula."""
        d_output, d_lse, _, _, *both = ctx.saved_tensors
        found = pulled_formula(second_formula(ctx.rule, ctx.scale), [d_output, d_lse, *both], d)
        return None, None, *found[:2], None, None, *found[2:]

    @staticmethod
    def jvp(ctx: Any, _rule: None, _scale: None, t_d_output: Any, t_d_lse: Any, _o: Any, _l: Any, *t: Any) -> Any:
        """By the formula."""
        d_output, d_lse, _, _, *both = ctx.saved_tensors
        formula = second_formula(ctx.rule, ctx.scale)
        return moved_formula(formula, [d_output, d_lse, *both], (t_d_output, t_d_lse, *t))


# Beyond second order: the same functions as torch operations


def tangent_formula(rule: str, scale: float) -> Callable[..., Any]:
    """`Tangent` of (*operands, *directions)."""

    def function(*both: Any) -> Any:
        x, t = halves(both)
        return moved_formula(output_formula(rule, scale), x, t)

    return function


def second_formula(rule: str, scale: float) -> Callable[..., Any]:
    """`Second` of (d_output, d_lse, *operands, *directions)."""

    def function(d_output: Any, d_lse: Any, *both: Any) -> Any:
        x, t = halves(both)

        def gradients(d_output: Any, d_lse: Any, *x: Any) -> Any:
            found = pulled_formula(output_formula(rule, scale), x, (d_output, d_lse))
            return tuple(empty(d_output) if g is None else g for g in found)

        given = tuple(zero(t_x, x_) if smooth(x_) else empty(d_output) for t_x, x_ in zip(t, x, strict=True))
        found = pulled_formula(gradients, (d_output, d_lse, *x), given)
        return tuple(empty(d_output) if g is None else g for g in found)

    return function


def output_formula(rule: str, scale: float) -> Callable[..., Any]:
    """`Forward` of the operands."""

    def function(query: Any, key: Any, value: Any, sink: Any, *tables: Any) -> Any:
        return attention_formula(query, key, value, tables, sink, rule_named(rule), scale)

    return function


def moved_formula(function: Callable[..., Any], x: Sequence[Any], t: Sequence[Any]) -> Any:
    """How a function's results move with those of its tensors that are floats."""
    own = [n for n, part in enumerate(x) if smooth(part)]
    return torch.func.jvp(of_some(function, x, own), tuple(x[n] for n in own), tuple(zero(t[n], x[n]) for n in own))[1]


def pulled_formula(function: Callable[..., Any], x: Sequence[Any], d: Sequence[Any]) -> list[Any]:
    """A function's gradients by its tensors; None for those that have none."""
    own = [n for n, part in enumerate(x) if smooth(part)]
    found = dict(zip(own, torch.func.vjp(of_some(function, x, own), *(x[n] for n in own))[1](tuple(d)), strict=True))
    return [found.get(n) for n in range(len(x))]


def of_some(function: Callable[..., Any], x: Sequence[Any], own: Sequence[int]) -> Callable[..., Any]:
    """The function of some of its arguments, the others held."""

    def changed(*some: Any) -> Any:
        given = list(x)
        for n, part in zip(own, some, strict=True):
            given[n] = part
        return function(*given)

    return changed


def halves(both: Sequence[Any]) -> tuple[Tensors, Tensors]:
    """Operands and their directions."""
    middle = len(both) // 2
    return tuple(both[:middle]), tuple(both[middle:])


def smooth(x: Any) -> bool:
    """Whether something has a gradient."""
    return isinstance(x, torch.Tensor) and x.is_floating_point()


def smooth_only(found: Sequence[Any], x: Sequence[Any]) -> Tensors:
    """Gradients of those operands that have one."""
    return tuple(g if smooth(own) else None for g, own in zip(found, x, strict=True))


def zero(t: Any, x: torch.Tensor) -> torch.Tensor:
    """A direction, or none as zeros."""
    return torch.zeros_like(x) if t is None else t


def empty(like: torch.Tensor) -> torch.Tensor:
    """What stands for no gradient."""
    return like.new_empty(0)
