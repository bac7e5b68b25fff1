"""Read a .safetensors file that a `save` wrote: arrays and metadata, checked whole before they are used."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from clearhead.arrays import Array
from clearhead.errors import ClearheadError, FileError, reason

Loaded = TypeVar("Loaded")


def read_saved(
    path: str | os.PathLike[str], checked: Callable[[dict[str, Array], dict[str, str]], Loaded], what: str, writer: str
) -> Loaded:
    """What `checked` makes of a file's arrays and metadata; raises FileError for a file that `writer` did not write.

    `checked` raises KeyError or ValueError for what does not fit together.
    """
    from safetensors import safe_open

    try:
        if not Path(path).is_file():
            raise ValueError("it does not exist" if not Path(path).exists() else "it is not a file")
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return checked(arrays, metadata)
    except ClearheadError:
        raise
    except Exception as error:  # parsers of arbitrary bytes raise any error
        why = f"it has no {reason(error)}" if isinstance(error, KeyError) else reason(error)
        raise FileError(f"{path} is not a saved {what} ({why}): give a file that {writer} wrote.") from None
