"""One call of a kernel as a table of 64-bit integers: what Python writes and machine code reads.

Decides the order of the fields. Addresses and strides are in bytes; leading axes follow the named fields, each as
(size, query stride, key stride, value stride, output stride).
"""

from llvmlite import ir

from clearhead.kernels.simd import Function, Value

FIELDS = (
    "next_task",  # the shared work queue: threads take the next tile from here, atomically
    "tasks",
    "heads",
    "queries",
    "keys",
    "query_dim",
    "value_dim",
    "reach",  # query i sees the keys j ≤ i + reach
    "scale",  # a float64's bits
    "query",
    "key",
    "value",
    "output",
    "lse",  # 0: not wanted
    "query_row",
    "key_row",
    "value_row",
    "output_row",
    "query_element",
    "key_element",
    "value_element",
    "output_element",
    "at_scores",  # where each thread's scratch memory holds what
    "at_softmax",
    "at_query",
    "at_output",
    "at_total",
    "at_keys",
    "at_values",
    "axes",
)
INDEX = {name: index for index, name in enumerate(FIELDS)}
AXIS = ("size", "query", "key", "value", "output")


def field(f: Function, table: Value, name: str) -> Value:
    """Read one field of the call's table."""
    return f.load_int(table, INDEX[name])


def scale(f: Function, table: Value) -> Value:
    """The scale, rounded to the element type."""
    bits = f.block.bitcast(field(f, table, "scale"), ir.DoubleType())
    return bits if f.element.bytes == 8 else f.block.fptrunc(bits, f.element.type)
