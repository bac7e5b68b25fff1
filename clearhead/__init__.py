"""clearhead: self-attention you can see through."""

from clearhead.attention import Attended, attend, attention, merge, self_attention
from clearhead.errors import ClearheadError, DtypeError, FileError, InputError, MachineError, ShapeError
from clearhead.plan import kernel_for
from clearhead.problem import Problem, problem
from clearhead.rules.masks import Causal, Full, causal, full

__version__ = "0.1.0"
__all__ = [
    "Attended",
    "Causal",
    "ClearheadError",
    "DtypeError",
    "FileError",
    "Full",
    "InputError",
    "MachineError",
    "Problem",
    "ShapeError",
    "__version__",
    "attend",
    "attention",
    "causal",
    "full",
    "kernel_for",
    "merge",
    "problem",
    "self_attention",
]
