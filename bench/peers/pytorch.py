"""PyTorch: scaled_dot_product_attention, its eager formula, gradients by autograd, and weights from a matrix."""

from collections.abc import Callable
from typing import Any

import numpy as np

from clearhead.arrays import Array
from clearhead.cli.race import Contender


def torch_with(threads: int = 1) -> Any:
    """PyTorch, on so many threads."""
    import torch

    torch.set_num_threads(threads)
    return torch


def tensors(*arrays: Array, dtype: str = "") -> list[Any]:
    """Tensors over the arrays' memory, or copies of another dtype."""
    torch = torch_with()
    found = [torch.from_numpy(np.ascontiguousarray(x)) for x in arrays]
    return [x.to(getattr(torch, dtype)) for x in found] if dtype else found


def as_array(answer: Any) -> Array:
    """A tensor as an array that numpy can count with."""
    return np.asarray(answer.detach().float() if answer.element_size() == 2 else answer.detach())


def sdpa(
    q: Array, k: Array, v: Array, *, causal: bool = True, seen: Array | None = None, dtype: str = "", threads: int = 1
) -> Contender:
    """scaled_dot_product_attention, causal or with a dense mask or bias."""
    torch = torch_with(threads)
    operands = tensors(q, k, v, dtype=dtype)
    attend = torch.nn.functional.scaled_dot_product_attention
    options = {"is_causal": causal, "enable_gqa": q.shape[1] != k.shape[1]}
    if seen is not None:
        options |= {"is_causal": False, "attn_mask": torch.from_numpy(seen)}

    def call() -> Any:
        torch.set_num_threads(threads)
        with torch.no_grad():
            return attend(*operands, **options)

    attend(*(x[..., :8, :] for x in operands), enable_gqa=options["enable_gqa"])  # loads what a first call loads
    return Contender(call, as_array)


def eager(q: Array, k: Array, v: Array) -> Contender:
    """The same function by its formula: scores, mask, softmax and product as whole matrices."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    plain = sdpa(q, k, v)

    def call() -> Any:
        with sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            return plain.call()

    return Contender(call, as_array)


def gradients(
    q: Array, k: Array, v: Array, d_out: Array, *, seen: Array | None = None, dtype: str = "", by_formula: bool = False
) -> Contender:
    """Forward and backward by autograd through its own attention; the answer is dQ, dK and dV, stacked."""
    torch = torch_with()
    from torch.nn.attention import SDPBackend, sdpa_kernel

    *operands, grad = (x.detach() for x in tensors(q, k, v, d_out, dtype=dtype))
    operands = [x.requires_grad_() for x in operands]
    options = {"is_causal": True} if seen is None else {"attn_mask": torch.from_numpy(seen)}

    def call() -> Any:
        return torch.autograd.grad(
            torch.nn.functional.scaled_dot_product_attention(*operands, **options), operands, grad
        )

    def formula() -> Any:
        with sdpa_kernel(SDPBackend.MATH):
            return call()

    return Contender(formula if by_formula else call, lambda answer: np.stack([as_array(x) for x in answer]))


def by_matrix(
    q: Array, k: Array, v: Array, use: Callable[[Any, Any, Any], Any], read: Callable[[Any], Array]
) -> Contender:
    """What is made of the whole matrix of causal weights, as one writes it: `use(torch, weights, values)`."""
    torch = torch_with()
    n = q.shape[-2]
    query, key, value = tensors(q, k, v)
    hidden = torch.ones(n, n, dtype=torch.bool).triu(1)

    def call() -> Any:
        with torch.no_grad():
            scores = query @ key.transpose(-1, -2) * q.shape[-1] ** -0.5
            return use(torch, scores.masked_fill_(hidden, -torch.inf).softmax(-1), value)

    return Contender(call, read)


def by_rows(
    q: Array, k: Array, rows: int, use: Callable[[Any, Any, int], Any], read: Callable[[list[Any]], Array]
) -> Contender:
    """What is made of some rows of causal weights at a time, `use(torch, rows, first)`: a large matrix in pieces."""
    torch = torch_with()
    query, key = tensors(q, k)

    def call() -> list[Any]:
        found = []
        with torch.no_grad():
            for start in range(0, q.shape[-2], rows):
                end = min(start + rows, q.shape[-2])
                scores = query[..., start:end, :] @ key[..., :end, :].transpose(-1, -2) * q.shape[-1] ** -0.5
                later = torch.ones(end - start, end, dtype=torch.bool).triu(1 + start)
                found.append(use(torch, scores.masked_fill_(later, -torch.inf).softmax(-1), start))
        return found

    return Contender(call, read)
