"""Tensors whose numbers are computed when something reads them: a tensor to all of torch, and little memory until then.

Decides what reads and what does not. Under torch's functions they become plain tensors, with gradients; whoever keeps
one from growing (`weights`, a model's mask) answers some functions from what it is made of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from torch.utils._pytree import tree_map_only

aten = torch.ops.aten
ALIKE = (aten.detach.default, aten.alias.default)  # what gives the same tensor once more
MEMORY = (  # functions that read memory, which a lazy tensor has none of
    "numpy", "tolist", "data_ptr", "untyped_storage", "storage", "share_memory_", "__dlpack__", "apply_", "map_",
    "__dlpack_device__", "pin_memory", "__reversed__",
)  # fmt: skip
NOT_HERE: Any = object()  # an answer that there is none but the numbers'


def getter(name: str) -> Any:
    """The function by which a tensor has one of its properties; torch hands it to `__torch_function__`."""
    return vars(torch._C.TensorBase)[name].__get__


class LazyTensor(torch.Tensor):
    """A tensor that is computed once, when it is first read."""

    known: torch.Tensor | None = None  # the numbers, once they were read
    changed = False  # whether something was written to them since
    answers: ClassVar[dict[str, Callable[..., Any]]] = {}  # functions, by name, that need not read all numbers

    @classmethod
    def shaped(cls, shape: tuple[int, ...], dtype: torch.dtype) -> Any:
        """A tensor without memory."""
        return torch.Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device=torch.device("cpu"))

    def compute(self) -> torch.Tensor:
        """The numbers."""
        raise NotImplementedError

    def again(self) -> LazyTensor:
        """The same, outside of what autograd knows."""
        raise NotImplementedError

    def dense(self) -> torch.Tensor:
        """The numbers, kept from the first time on."""
        if self.known is None:
            with torch.no_grad():
                self.known = self.compute()
        return self.known

    @property
    def recorded(self) -> bool:
        """Whether autograd writes down what is done with it."""
        return bool(torch.is_grad_enabled() and getter("requires_grad")(self))

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(function, "__name__", "")
        first = args[0] if args else None
        if isinstance(first, LazyTensor) and not first.changed and name in first.answers:
            found = first.answers[name](*args, **kwargs)
            if found is not NOT_HERE:
                return found
        if name == "__setitem__" and isinstance(first, LazyTensor):
            first.changed = True
        with torch._C.DisableTorchFunctionSubclass():
            if name in MEMORY:
                args, kwargs = tree_map_only(LazyTensor, numbers, (args, kwargs))
            return function(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch calls the first argument func, and passes it by place
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function in ALIKE and not args[0].changed:
            return args[0].again()
        if function._schema.is_mutable:
            tree_map_only(LazyTensor, write_to, (args, kwargs or {}))
        args, kwargs = tree_map_only(LazyTensor, LazyTensor.dense, (args, kwargs or {}))
        return function(*args, **kwargs)

    def __call__(self) -> torch.Tensor:
        """The numbers as a plain tensor, with their gradient."""
        return numbers(self)

    def __array__(self, *args: Any, **options: Any) -> Any:
        return np.asarray(self.dense().numpy(), *args, **options)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.dense().detach().requires_grad_(self.requires_grad).__reduce_ex__(protocol)

    def __deepcopy__(self, memo: Any) -> torch.Tensor:
        return self.dense().clone()

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"{type(self).__name__}({tuple(self.shape)})"


def numbers(x: LazyTensor) -> torch.Tensor:
    """A plain tensor with the gradient of a lazy one."""
    return x.view(x.shape) if x.recorded else x.dense()


def write_to(x: LazyTensor) -> None:
    """From now on its own numbers count."""
    x.changed = True
