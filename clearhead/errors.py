"""Every error a user can meet: one root, six branches.

    ClearheadError
    ├── InputError        (also ValueError)   an invalid argument: names the value and the next step
    │   ├── ShapeError                        ranks, lengths, dims, heads, alignment, overlapping memory
    │   ├── DtypeError    (also TypeError)    integers, complex numbers, mixed dtypes
    │   └── TraceError                        a rule's function cannot be traced: names the line
    ├── FileError         (also OSError)      a file cannot be read, parsed or written
    ├── MachineError      (also RuntimeError) this processor or its cache directory cannot do this
    ├── PeerError         (also ConnectionError) another process of a group is lost, or does not answer
    └── TrustError        (also RuntimeError) a recording does not reproduce the model's own output

A message says what is wrong, with the offending shapes or values, then what to do next.
"""

MOST_SAID = 200  # maximum characters quoted from the error of another library


class ClearheadError(Exception):
    """The root: catch this to catch everything that clearhead raises on purpose."""


class InputError(ClearheadError, ValueError):
    """An invalid argument."""


class ShapeError(InputError):
    """Ranks, lengths, dims, heads, alignments or memory that do not fit together."""


class DtypeError(InputError, TypeError):
    """A dtype that attention is not defined for."""


class TraceError(InputError):
    """A rule's function does something that cannot be compiled into a kernel."""


class FileError(ClearheadError, OSError):
    """A file that cannot be read, parsed or written."""


class MachineError(ClearheadError, RuntimeError):
    """This processor, or its cache directory, cannot do something."""


class PeerError(ClearheadError, ConnectionError):
    """Another process of a group is lost, has failed or does not answer, so the call has no result."""


class TrustError(ClearheadError, RuntimeError):
    """A recording of a model does not reproduce the model's own output, so it is not shown."""


def reason(error: Exception) -> str:
    """The message of another library's error as one short printable line, since it may quote arbitrary bytes.

    >>> reason(ValueError("cannot parse\\n" + "\\0" * 9))
    'cannot parse'
    """
    text = "".join(c if c.isprintable() else " " for c in str(error)[: 10 * MOST_SAID])
    text = " ".join(text.split()) or type(error).__name__
    return text if len(text) <= MOST_SAID else f"{text[:MOST_SAID]}…"
