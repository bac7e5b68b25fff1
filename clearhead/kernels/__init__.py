"""Python programs that write machine code: vectors and loops (`simd`), elementary functions (`math`), kernels."""
