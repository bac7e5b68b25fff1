"""Tensors whose numbers are computed on first use: tensors for all of torch that need little memory until then.

Responsible for deciding which functions read the numbers. In those, lazy tensors become plain tensors, with gradients.
A subclass (`weights`, a model's mask) can answer other functions without computing all numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from torch.utils._pytree import tree_map_only

aten = torch.ops.aten
SAME_TENSOR = (aten.detach.default, aten.alias.default)  # operators that return the same tensor
MEMORY_FUNCTIONS = (  # functions that read memory, which a lazy tensor does not have
    "numpy", "tolist", "data_ptr", "untyped_storage", "storage", "share_memory_", "__dlpack__", "apply_", "map_",
    "__dlpack_device__", "pin_memory", "__reversed__",
)  # fmt: skip
NO_ANSWER: Any = object()  # the answer that a function needs the numbers


def getter(name: str) -> Any:
    """The getter of a tensor property, as torch passes it to `__torch_function__`."""
    return vars(torch._C.TensorBase)[name].__get__


class LazyTensor(torch.Tensor):
    """A tensor that is computed once, on first use."""

    known: torch.Tensor | None = None  # the numbers, once computed
    changed = False  # whether the numbers were written to
    answers: ClassVar[dict[str, Callable[..., Any]]] = {}  # functions, by name, that do not need all numbers

    @classmethod
    def shaped(cls, shape: tuple[int, ...], dtype: torch.dtype) -> Any:
        """A tensor without memory."""
        return torch.Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device=torch.device("cpu"))

    def compute(self) -> torch.Tensor:
        """Compute the numbers."""
        raise NotImplementedError

    def again(self) -> LazyTensor:
        """The same tensor, detached from autograd."""
        raise NotImplementedError

    def dense(self) -> torch.Tensor:
        """The numbers, computed on the first call."""
        if self.known is None:
            with torch.no_grad():
                self.known = self.compute()
        return self.known

    @property
    def recorded(self) -> bool:
        """Whether autograd records operations on it."""
        return bool(torch.is_grad_enabled() and getter("requires_grad")(self))

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(function, "__name__", "")
        first = args[0] if args else None
        if isinstance(first, LazyTensor) and not first.changed and name in first.answers:
            answer = first.answers[name](*args, **kwargs)
            if answer is not NO_ANSWER:
                return answer
        if name == "__setitem__" and isinstance(first, LazyTensor):
            first.changed = True
        with torch._C.DisableTorchFunctionSubclass():
            if name in MEMORY_FUNCTIONS:
                args, kwargs = tree_map_only(LazyTensor, plain_tensor, (args, kwargs))
            return function(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch passes the first argument, func, by position
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function in SAME_TENSOR and not args[0].changed:
            return args[0].again()
        if function._schema.is_mutable:
            tree_map_only(LazyTensor, write_to, (args, kwargs or {}))
        args, kwargs = tree_map_only(LazyTensor, LazyTensor.dense, (args, kwargs or {}))
        return function(*args, **kwargs)

    def __call__(self) -> torch.Tensor:
        """The numbers as a plain tensor, with their gradient."""
        return plain_tensor(self)

    def __array__(self, *args: Any, **options: Any) -> Any:
        return np.asarray(self.dense().numpy(), *args, **options)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.dense().detach().requires_grad_(self.requires_grad).__reduce_ex__(protocol)

    def __deepcopy__(self, memo: Any) -> torch.Tensor:
        return self.dense().clone()

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"{type(self).__name__}({tuple(self.shape)})"


def plain_tensor(x: LazyTensor) -> torch.Tensor:
    """A plain tensor with the gradient of a lazy one."""
    return x.view(x.shape) if x.recorded else x.dense()


def write_to(x: LazyTensor) -> None:
    """Mark a lazy tensor as changed: from now on, its numbers count."""
    x.changed = True
