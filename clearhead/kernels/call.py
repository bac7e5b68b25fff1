"""One call of a kernel as a table of 64-bit integers: what Python writes and machine code reads.

Decides the order of the fields. Addresses and strides are in bytes. Behind the named fields stand the leading axes,
each as (size, query stride, key stride, value stride, output stride); the last axis turns fastest.
"""

FIELDS = (
    "next_task",  # the shared work queue: threads take the next tile from here, atomically
    "tasks",
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
    "at_scores",  # where in each thread's scratch memory what is kept
    "at_softmax",
    "at_query",
    "at_output",
    "at_total",
    "at_keys",
    "at_values",
    "axes",
)
AXIS = ("size", "query", "key", "value", "output")
