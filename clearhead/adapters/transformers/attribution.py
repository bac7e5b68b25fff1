"""Direct logit attribution: how much each head and each other part of a model adds to a token's logit.

Responsible for cutting every path but the direct one: what a part writes passes through the residual stream and the
final norm, whose scale is frozen at its value, and through no later layer. One forward pass finds all parts, and one
backward pass of that linear rest what each adds. `frozen` freezes norms, `projections` splits W_O into heads.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from clearhead.adapters.torch.loss_gradients import numbers
from clearhead.adapters.transformers.frozen import TOLERANCES, frozen_norm, is_norm
from clearhead.adapters.transformers.projections import heads_of, projection, usual_layers
from clearhead.arrays import Array
from clearhead.displayed import Brief
from clearhead.errors import InputError, TrustError

Hook = Callable[..., Any]


@dataclass(frozen=True, repr=False)
class Attribution(Brief):
    """What each part of a model adds to one token's logit, or to its lead over another: all parts add up to `logit`."""

    logit: float  # what the unembedding gives, before any scaling or softcap
    layers: tuple[int, ...]  # the numbers of the attention layers
    heads: Array  # (layers, heads): what each head adds directly
    others: dict[str, float]  # the rest, by the names of the modules: embedding, MLPs, biases
    directions: tuple[Array, ...]  # of each layer, (heads, dv): a head adds its weighted values · its direction


def logit_attribution(
    model: torch.nn.Module,
    inputs: Any,
    token: int,
    *,
    against: int | None = None,
    position: int = -1,
) -> Attribution:
    """How much each head adds directly to the logit of `token` at a position, or to its lead over `against`.

    `inputs` are the ids of one sequence, or a tokenizer's answer for it. Runs the model once, whatever its attention
    implementation, in O(n) memory beside that. As in TransformerLens, each norm on the way (the final one, and those
    that Gemma and OLMo put behind attention) keeps the scale that it had, and no later layer answers. The parts are
    checked: if they do not add up to the model's own logit, TrustError. Raises InputError.

        parts = logit_attribution(model, tokenizer(text, return_tensors="pt"), token=paris, against=rome)
        clearhead.rank_heads(parts.heads)      # the heads that raise it most
        clearhead.key_contributions(seen.layer(5), seen.layer(5).values, parts.directions[5])  # and from where
    """
    given = checked_inputs(inputs, model)
    attention = usual_layers(model)
    unembedding = unembedding_of(model)
    tokens = checked_tokens(model, token, against)
    length = given[next(iter(given))].shape[1]
    if not isinstance(position, int | np.integer) or not -length <= position < length:
        raise InputError(f"position {position!r} is not one of the {length}: give 0 to {length - 1}, or -1.")
    path = DirectPath(int(position) % length)
    parameters = {name: x.detach() for name, x in model.named_parameters()}
    with torch.inference_mode(False), torch.enable_grad():
        with path.through(model, attention, unembedding):
            torch.func.functional_call(model, parameters, (), {**given, "use_cache": False})
        if path.logits is None:
            raise InputError(f"{type(model).__name__} did not use its output embeddings: give a causal language model.")
        if silent := [number for module, number in attention.items() if module not in path.outputs]:
            raise InputError(f"attention layers {silent} did not run: give all of the model's inputs, images as well.")
        each = path.logits[list(tokens)]
        return attribution_of(path, each[0] - each[1:].sum(), attention, bias_of(unembedding, tokens))


def attribution_of(
    path: "DirectPath", logit: torch.Tensor, attention: Mapping[torch.nn.Module, int], bias: float
) -> Attribution:
    """Split a logit into what each part adds."""
    names = list(path.parts)
    gradients = torch.autograd.grad(logit, [path.parts[name] for name in names], allow_unused=True)
    along = {name: np.zeros(1) if g is None else numbers(g) for name, g in zip(names, gradients, strict=True)}
    others = {name: float((numbers(path.parts[name]) * along[name]).sum()) for name in names}
    heads, directions = [], []
    for module in attention:
        name = path.projections[module]
        if not along[name].any():
            raise InputError(
                f"what {name} writes does not reach the logits directly, but only through other parts: its heads have "
                "no direct attribution. Ask for the heads' own outputs, by clearhead.head_outputs."
            )
        linear: Any = projection(module)[1]
        W_O = heads_of(module, linear)
        direction = W_O @ np.broadcast_to(along[name], W_O.shape[-1:])
        directions.append(direction)
        heads.append((path.outputs[module].reshape(direction.shape) * direction).sum(-1))
        others[name] = 0.0 if linear.bias is None else float((numbers(linear.bias) * along[name]).sum())
    if len({len(row) for row in heads}) > 1:
        counts = [len(row) for row in heads]
        raise InputError(
            f"layers with {counts} heads make no table of (layers, heads): ask for each layer's own outputs, by "
            "clearhead.head_outputs."
        )
    others["the unembedding's bias"] = bias
    found = np.stack(heads)
    parts = [*found.ravel(), *others.values()]
    error, size = abs(sum(parts) - logit.item()), sum(map(abs, parts)) + abs(logit.item())
    if not error <= TOLERANCES[logit.dtype] * size:
        raise TrustError(
            f"the parts add up to {sum(parts):.6g}, but the model's logit is {logit.item():.6g}: what its layers add "
            "up is not a residual stream of attention and MLPs, so no attribution is shown. Ask for the heads' own "
            "outputs, by clearhead.head_outputs."
        )
    shown = {name: value for name, value in others.items() if value}
    return Attribution(logit.item(), tuple(attention.values()), found, shown, tuple(directions))


@dataclass(eq=False)
class DirectPath:
    """Hooks that let gradients pass along the residual stream alone, at one position."""

    position: int
    parts: dict[str, torch.Tensor] = field(default_factory=dict)  # what is added to the stream, by modules' names
    projections: dict[torch.nn.Module, str] = field(default_factory=dict)  # of attention layers: the projection's name
    outputs: dict[torch.nn.Module, Array] = field(default_factory=dict)  # the heads' weighted values
    logits: torch.Tensor | None = None

    @contextmanager
    def through(
        self, model: torch.nn.Module, attention: Mapping[torch.nn.Module, int], unembedding: torch.nn.Module
    ) -> Iterator[None]:
        """Set the hooks, and remove them afterwards."""
        names = {module: name for name, module in model.named_modules()}
        stack = layers_with(model, attention)
        hooks = [
            stack[0].register_forward_pre_hook(self.begin(f"the input of {names[stack[0]]}"), with_kwargs=True),
            unembedding.register_forward_pre_hook(self.only_position),
            unembedding.register_forward_hook(self.end),
        ]
        branches = {part for layer in stack for part in branches_of(layer, attention)}
        for module in branches:
            hooks.append(module.register_forward_pre_hook(cut, with_kwargs=True))
            if module not in attention:
                hooks.append(module.register_forward_hook(self.added(names[module])))
                continue
            own, linear = projection(module)
            self.projections[module] = f"{names[module]}.{own}"
            hooks.append(linear.register_forward_pre_hook(self.head_outputs(module)))
            hooks.append(linear.register_forward_hook(self.added(self.projections[module])))
        within = {part for module in branches for part in module.modules()}
        norms = [module for module in model.modules() if is_norm(module) and module not in within]
        hooks += [module.register_forward_hook(self.frozen(names[module])) for module in norms]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def row(self, x: torch.Tensor) -> torch.Tensor:
        """The vector at the position."""
        return x.reshape(-1, x.shape[-1])[self.position]

    def with_row(self, x: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        """A tensor without history, except for the vector at the position."""
        flat = x.detach().reshape(-1, x.shape[-1])
        return torch.cat([flat[: self.position], row[None], flat[self.position + 1 :]]).reshape(x.shape)

    def part(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """Let a tensor begin anew, as a part that is added to the residual stream."""
        own = self.row(x).detach().clone().requires_grad_()
        self.parts[name] = own
        return self.with_row(x, own)

    def begin(self, name: str) -> Hook:
        """Hook before the first layer: its input is a part."""

        def hook(_: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
            if args:
                return (self.part(name, args[0]), *args[1:]), options
            return args, {**options, "hidden_states": self.part(name, options["hidden_states"])}

        return hook

    def added(self, name: str) -> Hook:
        """Hook after a branch: its output is a part."""

        def hook(_: Any, args: Any, out: Any) -> Any:
            if isinstance(out, torch.Tensor):
                return self.part(name, out)
            return (self.part(name, out[0]), *out[1:])

        return hook

    def head_outputs(self, module: torch.nn.Module) -> Hook:
        """Hook before an output projection: keep what the heads give it."""

        def hook(_: Any, args: tuple[torch.Tensor, ...]) -> None:
            self.outputs[module] = numbers(self.row(args[0]))

        return hook

    def frozen(self, name: str) -> Hook:
        """Hook after a norm: its scale is frozen, and its bias is a part."""

        def hook(module: Any, args: tuple[torch.Tensor, ...], out: torch.Tensor) -> Any:
            if not args[0].requires_grad:  # before the stream begins, or in a part that does not end in it
                return out
            x = self.row(args[0])
            with torch.no_grad():
                norm = frozen_norm(module.forward, x.detach(), f"{name} ({type(module).__name__})")
            self.parts[name] = bias = norm.bias.clone().requires_grad_()
            linear = norm(x) - norm.bias + bias
            return self.with_row(out, linear + (self.row(out) - linear).detach())

        return hook

    def only_position(self, _: Any, args: tuple[torch.Tensor, ...]) -> Any:
        """Hook before the unembedding: no other position needs logits."""
        return (self.row(args[0])[None, None], *args[1:])

    def end(self, _: Any, args: Any, out: torch.Tensor) -> None:
        """Hook after the unembedding: keep the logits."""
        self.logits = out[0, 0]


def cut(_: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Hook before a branch: autograd records nothing inside it, and nothing of what else it returns."""

    def loose(x: Any) -> Any:
        return x.detach() if isinstance(x, torch.Tensor) else x

    return tuple(map(loose, args)), {name: loose(x) for name, x in options.items()}


def layers_with(model: torch.nn.Module, attention: Mapping[torch.nn.Module, int]) -> torch.nn.ModuleList:
    """The list of layers that the attention layers are in."""
    for module in model.modules():
        if isinstance(module, torch.nn.ModuleList):
            within = {part for part in module.modules() if part in attention}
            if len(within) == len(attention):
                return module
    raise InputError(f"{type(model).__name__} does not keep its attention layers in one list: it has no known stream.")


def branches_of(module: torch.nn.Module, attention: Mapping[torch.nn.Module, int]) -> Iterator[torch.nn.Module]:
    """The parts of a layer that read the residual stream and add to it: attention, and what else has a matrix."""
    for child in module.children():
        if child in attention:
            yield child
        elif isinstance(child, torch.nn.ModuleList) or any(part in attention for part in child.modules()):
            yield from branches_of(child, attention)
        elif not is_norm(child) and any(x.ndim > 1 for x in child.parameters()):
            yield child


def unembedding_of(model: Any) -> torch.nn.Linear:
    """The module that makes logits."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    if not isinstance(head, torch.nn.Linear):
        raise InputError(
            f"{type(model).__name__} has no linear unembedding that get_output_embeddings() "
            "gives: give a causal language model of transformers, or add that method."
        )
    return head


def bias_of(unembedding: torch.nn.Linear, tokens: tuple[int, ...]) -> float:
    """What the unembedding's bias adds to a logit, or to its lead."""
    if unembedding.bias is None:
        return 0.0
    each = numbers(unembedding.bias)[list(tokens)]
    return float(each[0] - each[1:].sum())


def checked_inputs(inputs: Any, model: torch.nn.Module) -> dict[str, Any]:
    """Check the inputs of a model: one sequence, and a model that does the same each time."""
    if model.training:
        raise InputError("the model is in training mode, where dropout changes each pass: call model.eval() first.")
    if isinstance(inputs, Mapping):
        given = {name: inputs[name] for name in sorted(inputs, key=lambda name: name != "input_ids")}
    elif isinstance(inputs, str):
        raise InputError(f"inputs={inputs!r:.60} are text: give tokenizer(text, return_tensors='pt').")
    else:
        given = {"input_ids": torch.as_tensor(inputs)}
    ids = given.get("input_ids", given.get("inputs_embeds"))
    if not isinstance(ids, torch.Tensor):
        raise InputError("the inputs have no input_ids: give ids, or tokenizer(text, return_tensors='pt').")
    if not isinstance(inputs, Mapping) and ids.ndim == 1:
        given["input_ids"] = ids = ids[None]
    if ids.ndim < 2 or ids.shape[0] != 1 or not ids.shape[1]:
        raise InputError(f"inputs of shape {tuple(ids.shape)} are not one sequence: give (1, tokens), one at a time.")
    return given


def checked_tokens(model: Any, token: Any, against: Any) -> tuple[int, ...]:
    """Check the tokens whose logits are explained."""
    count = model.get_output_embeddings().weight.shape[0]
    given = {"token": token} | ({} if against is None else {"against": against})
    for name, number in given.items():
        if isinstance(number, bool) or not isinstance(number, int | np.integer) or not 0 <= number < count:
            raise InputError(f"{name}={number!r} is not the id of a token: give 0 to {count - 1}.")
    return tuple(int(number) for number in given.values())
