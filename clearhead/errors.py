"""Every error a user can meet: one root, five branches.

    ClearheadError
    ├── InputError        (also ValueError)   an argument cannot mean anything: names the value and the next step
    │   ├── ShapeError                        ranks, lengths, dims, heads, alignment, overlapping memory
    │   ├── DtypeError    (also TypeError)    integers, complex numbers, mixed dtypes
    │   └── TraceError                        a rule's function does what cannot be traced: names the line
    ├── FileError         (also OSError)      a file cannot be read, parsed or written
    ├── MachineError      (also RuntimeError) this processor or its cache directory cannot do what was asked
    └── TrustError        (also RuntimeError) what was recorded does not reproduce the model's own output

Messages are one sentence of what is wrong, with the offending shapes or values, and one of what to do next.
"""

MOST_SAID = 200  # characters of a reason that another library gives


class ClearheadError(Exception):
    """The root: catch this to catch everything clearhead raises on purpose."""


class InputError(ClearheadError, ValueError):
    """An argument that cannot mean anything."""


class ShapeError(InputError):
    """Ranks, lengths, dims, heads, alignments or memory that do not fit together."""


class DtypeError(InputError, TypeError):
    """A number type that attention is not defined for."""


class TraceError(InputError):
    """A function of a rule does something that cannot become part of a kernel."""


class FileError(ClearheadError, OSError):
    """A file that cannot be read, parsed or written."""


class MachineError(ClearheadError, RuntimeError):
    """This processor, or its cache directory, cannot do what was asked."""


class TrustError(ClearheadError, RuntimeError):
    """What was recorded of a model does not reproduce the model's own output, and is not shown."""


def reason(error: Exception) -> str:
    """What another library says is wrong, in one line that can be read whole: it may quote a file of any bytes.

    >>> reason(ValueError("cannot parse\\n" + "\\0" * 9))
    'cannot parse'
    """
    said = "".join(c if c.isprintable() else " " for c in str(error)[: 10 * MOST_SAID])
    said = " ".join(said.split()) or type(error).__name__
    return said if len(said) <= MOST_SAID else f"{said[:MOST_SAID]}…"
