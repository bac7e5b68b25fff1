"""The arrays that masks and score rules are given: checked when a rule is made, read by pairs."""

from typing import Any

import numpy as np
import numpy.typing as npt

from clearhead.errors import InputError, reason
from clearhead.rules.expression import Expression


def broadcast_index(shape: tuple[int, ...], names: tuple[str, ...]) -> tuple[Expression, ...]:
    """The index at which a pair reads an array of this shape; its axes are the last of `names`, size 1 broadcasts.

    >>> broadcast_index((8, 1, 5), ("batch", "head", "row", "key"))
    (head, 0, key)
    """
    zero = Expression("constant", "int", value=0)
    leaves = (Expression(name, "int") for name in names[len(names) - len(shape) :])
    return tuple(zero if n == 1 else leaf for n, leaf in zip(shape, leaves, strict=True))


def bool_table(array: npt.ArrayLike, name: str, least: int) -> npt.NDArray[np.bool_]:
    """A boolean array with `least` to 4 axes, or InputError."""
    table = plain_array(array, name)
    if table.dtype != np.bool_ or not least <= table.ndim <= 4:
        raise InputError(
            f"{name} got an array of shape {table.shape} and dtype {table.dtype}: give booleans, (queries, keys) or "
            "with heads and batches before."
        )
    return table


def plain_array(array: npt.ArrayLike, name: str) -> npt.NDArray[Any]:
    """A rule's array as numpy, in native byte order, or InputError."""
    if isinstance(array, np.ma.MaskedArray):
        raise InputError(f"{name} got a masked array, whose mask would be ignored: give x.filled(...).")
    try:
        table = np.asarray(array)
    except (TypeError, RuntimeError) as error:  # torch's, of tensors on a card, in bfloat16, or with gradients
        raise InputError(
            f"{name} got a {type(array).__name__} that numpy cannot read ({reason(error).rstrip('.')}): give an array, "
            "for a tensor x as x.detach().cpu().numpy(), after x.float() in bfloat16; or give torch's flex_attention a "
            "function, which reads tensors where they are."
        ) from None
    except ValueError as error:
        raise InputError(
            f"{name} got rows of different lengths or types ({error}): give a rectangular array."
        ) from None
    if not table.dtype.isnative:
        raise InputError(f"{name} got {table.dtype.str}, a foreign byte order: give x.astype({table.dtype.name!r}).")
    return table
