"""Softmax's state of one tile: rows of one number for each query, in this order in scratch memory."""

M, L = 0, 1  # running maximum and sum of the segment
ALPHA, BETA = 2, 3  # factors of what was summed before, and of what joins it
TOP, SUM = 4, 5  # maximum and sum of one block
TOTAL_M, TOTAL_L = 6, 7  # maximum and sum of the finished segments
SOFTMAX_ROWS = 8

# Rows of a sweep over the weights, behind softmax's: each query's LSE, and what is found for it.
SWEEP_LSE = SOFTMAX_ROWS
FOUND = {name: SWEEP_LSE + 1 + n for n, name in enumerate(("entropy", "distance", "within", "first", "off_first"))}
SWEEP_ROWS = SWEEP_LSE + 1 + len(FOUND)
