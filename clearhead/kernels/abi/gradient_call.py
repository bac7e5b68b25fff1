"""One call of the backward kernel as a table of 64-bit integers: the forward's fields, then those of gradients.

Decides the order of the fields. Behind them stand the leading axes, each as AXIS says; the last axis turns fastest.
Tasks are tiles of queries; those that add to the same gradients of keys and values form a chain and keep its order.
"""

from clearhead.kernels.abi import call

FIELDS = (
    *call.FIELDS,
    "d_output",
    "d_lse",  # 0: none
    "d_query",
    "d_key",
    "d_value",
    "d_output_row",
    "d_output_element",
    "d_query_row",
    "progress",  # how many blocks of keys each task has passed
    "done",  # where DONE stands, for the first task of a chain
    "give_way",  # the system's function by which a thread that waits lets others run
    "chains",
    "chain",  # tasks of one
    "together",  # chains whose tasks take turns
    "serial",  # 1: a task begins when the one before it in its chain has ended
    "sums",  # each task's sums for the numbers that rules read once a head
    "at_query_rows",
    "at_d_output_rows",
    "at_output_rows",
    "at_d_output_columns",
    "at_d_query",
    "at_d_scores",
    "at_unused",
    "at_sums",
    "at_gains",  # a tile for each array whose pairs are summed before they are added
    "at_diagonals",
)
AXIS = ("size", "query", "key", "value", "output", "d_output", "d_query", "d_key", "d_value")
DONE = 1 << 62
GRADIENT_BLOCK = 64  # keys whose weights and their gradients stay in the nearest cache
