"""Softmax's state of one tile: rows of one number for each query, in this order in scratch memory."""

M, L = 0, 1  # running maximum and sum of the segment
ALPHA, BETA = 2, 3  # factors of what was summed before, and of what joins it
TOP, SUM = 4, 5  # maximum and sum of one block
TOTAL_M, TOTAL_L = 6, 7  # maximum and sum of the finished segments
ROWS = 8
