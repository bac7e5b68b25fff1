"""One call of a kernel as a table of 64-bit integers: what Python writes and machine code reads.

Decides the order of the fields. Addresses and strides are in bytes. Behind the named fields stand the leading axes,
each as (size, query stride, key stride, value stride, output stride); the last axis turns fastest.
"""

FIELDS = (
    "next_task",  # the shared work queue: threads take the next tile from here, atomically
    "tasks",
    "threads",  # how many share the call, at most
    "queries",
    "keys",
    "query_dim",
    "value_dim",
    "low",  # the query at position p sees no key before p + low, and none after p + high
    "high",
    "shift",  # a query's position is its index plus this
    "heads",  # on the last leading axis: the others count as batch
    "parameters",  # where in this table the constants and arrays of fused rules stand
    "tiles",  # packed documents: how many tiles one head has, and where their table lies
    "tile_table",
    "blocks",  # fused mask: what each tile sees of each block; 0: always find out
    "block_columns",
    "block_heads",  # how far apart the tables of two heads and of two batches lie: 0 if they share one
    "block_batches",
    "sink",  # one number for each head
    "rows",  # decode: queries of all heads that share their keys
    "group",  # how many those heads are, and how far apart their queries and outputs lie
    "group_query",
    "group_output",
    "segments",  # of keys, and the first of them that any query sees
    "first_segment",
    "first_key",  # what is before it has left the cache, or belongs to an earlier stretch
    "workspace",  # each segment's sums, and how many segments of a head are done; of carried sums, l
    "counters",  # with carried sums, where the addresses of the earlier o, m and l stand; 0: none
    "sweep",  # where the table of a sweep over the weights lies
    "scale",  # a float64's bits
    "query",
    "key",
    "value",
    "output",  # of carried sums, o
    "lse",  # 0: not wanted; of carried sums, m
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
    "at_place",
    "at_seen",
    "at_key_rows",
    "at_rows",
    "axes",
)
AXIS = ("size", "query", "key", "value", "output")
TILE = ("first", "rows", "shift", "origin", "keys")  # a packed document's tile: its queries, and the document's keys

PLACE = (
    "batch",
    "head",
    "row",  # index of the tile's first query
    "last",  # and of its last
    "shift",  # what makes an index a position
    "origin",  # the first key's position
    "untouched",  # no block of the segment was seen yet
    "seen_first",  # what is seen of a block: its first row, the row behind its last, and whether every pair
    "seen_stop",
    "seen_all",
    "factors",  # sweeps: where the head's factors lie, or 0
    "key_labels",  # and its labels of keys
)
SWEEP = (  # a sweep over the weights of some queries and keys
    "heads",  # the numbers of the heads that are wanted
    "groups",  # tasks of one head, and where each one's first tile stands in the table of tiles
    "group_table",
    "begin",  # the keys that are wanted
    "end",
    "queries",  # how many are wanted
    "target",  # blocks of weights, or what each task gathers for its keys; how far heads, groups and rows lie apart
    "target_head",
    "target_group",
    "target_row",
    "rows",  # what is found for each query: one array behind the other, each so many bytes long
    "rows_step",
    "near",  # how far away a key counts as near
    "top",  # how many of the largest weights are listed, and where
    "top_weights",
    "top_keys",
    "factors",  # what each head's weights are multiplied by in lists, a number for each key; 0: nothing
    "bins",  # columns of a picture
    "at_list",  # in each thread's scratch memory: the largest weights so far, and sums over the queries of a tile
    "at_sums",
    "shares",  # shares of each query: one for each pair of labels, then one for each range of distances
    "share_count",
    "labels",  # how many pairs of labels there are, and whether each head has its own
    "label_heads",
    "query_labels",  # (heads or one, pairs, all queries), as wide as the element
    "key_labels",  # (heads or one, pairs, all keys)
    "apart",  # for each pair: 0, or 1 + how far behind a query's own key the one stands that does not count
    "at_shares",  # in scratch memory: a tile's shares, and the labels of its queries
    "at_labels",
)
SWEEP_TILE = (*TILE, "at")  # and which of the queries that are wanted is its first
SEEN_BYTES = 2  # of one vector's bits under a fused mask
ROW = ("batch", "head", "row", "query", "low", "high", "flat")  # decode: a query, by index (row) and position (query)
PANEL_LINE = 64  # bytes of a line of a cache's page: one pair of dims of as many keys as fit
