"""An angle as a whole number of quarter turns and a rest within π/4 in two parts, exact to about 2⁻¹¹⁰ for any size.

Up to 2³⁰ by subtraction of n·π/2 with π/2 in three parts (Cody & Waite 1980, "Software manual for the elementary
functions"); beyond, by those bits of 2/π that an angle so large can feel (Payne & Hanek 1983, "Radian reduction for
trigonometric functions"), in whole numbers.
"""

from typing import Any

from clearhead.definition.arithmetic import SHIFT, Arithmetic, as_float, nearest, product, quick_sum, two_sum

HALF_PI = 1.5707963267948966, 6.123233995736766e-17, -1.4973849048591698e-33  # their sum, to 159 bits
INVERSE = 0.6366197723675814  # 2/π
NEAR = 2.0**30

# 2/π times 2¹¹⁹², whole, and so 24 zero bits and 1192 of the number, in words of 64 bits
DIGITS = int(
    "000000a2f9836e4e441529fc2757d1f534ddc0db6295993c439041fe5163abdebbc561b7246e"
    "3a424dd2e006492eea09d1921cfe1deb1cb129a73ee88235f52ebb4484e99c7026b45f7e4139"
    "91d639835339f49c845f8bbdf9283b1ff897ffde05980fef2f118b5a0a6d1f6d367ecf27cb09"
    "b74f463f669e5fea2d7527bac7ebe5f17b3d0739f78a5292ea6bfb5fb11f8d5d0856033046fc",
    16,
)
WORDS = 19
LOW = 0xFFFFFFFF


def reduce(a: Arithmetic, x: Any) -> tuple[Any, Any, Any]:
    """x as n·π/2 + r + low: n, of which the last two bits count, r and low. Of ∞, n and not a number."""
    shifted = a.fma(x, INVERSE, SHIFT)
    n, whole = nearest(a, shifted)
    if a.narrow:  # 53 bits of r are more than enough
        near = whole, a.fma(n, -HALF_PI[1], a.fma(n, -HALF_PI[0], x)), a.number(0.0)
    else:
        near = whole, *subtract(a, x, n)
    whole, r, low = a.rarely(a.size(x) > NEAR, reduce_large, x, near)
    return whole, a.select(a.size(x) < float("inf"), r, x - x), low


def subtract(a: Arithmetic, x: Any, n: Any) -> tuple[Any, Any]:
    """x − n·π/2 in two parts, for |n| ≤ 2³⁰."""
    first, first_low = product(a, n, HALF_PI[0])
    second, second_low = product(a, n, HALF_PI[1])
    r, rest = two_sum(a, x - first, -second)  # x − first is exact
    r, more = two_sum(a, r, -first_low)
    return quick_sum(a, r, (rest + more) - a.fma(n, HALF_PI[2], second_low))


def reduce_large(a: Arithmetic, x: Any) -> tuple[Any, Any, Any]:
    """The same for 2³⁰ ≤ |x| < ∞, by x·2/π modulo 4 as a whole number of 2 + 126 bits."""
    top, middle = times_inverse(a, a.bits(x))
    n = a.shift_right(top, 62) + (a.shift_right(top, 61) & 1)
    # The rest is within ½, with its sign: 32 bits at a time become a float exactly.
    rest = top - (n << 62)
    parts = (rest >> 32, -30), (rest & LOW, -62), (a.shift_right(middle, 32), -94), (middle & LOW, -126)
    first, second, third, fourth = (as_float(a, part) * 2.0**exponent for part, exponent in parts)
    high, low = quick_sum(a, first, second)
    high, low = quick_sum(a, high, low + (third + fourth))
    r, lost = product(a, high, HALF_PI[0])
    r, lost = quick_sum(a, r, lost + a.fma(high, HALF_PI[1], low * HALF_PI[0]))
    negative = x < 0.0
    return a.select(negative, 0 - n, n), a.select(negative, -r, r), a.select(negative, -lost, lost)


def times(a: Arithmetic, m: Any, word: Any) -> tuple[Any, Any]:
    """The upper and the lower 64 bits of a product of a whole number below 2⁵³ and a word, from four products of 32."""
    m_high, m_low, high, low = a.shift_right(m, 32), m & LOW, a.shift_right(word, 32), word & LOW
    least, one, other = m_low * low, m_low * high, m_high * low
    middle = a.shift_right(least, 32) + (one & LOW) + (other & LOW)
    upper = m_high * high + a.shift_right(one, 32) + a.shift_right(other, 32) + a.shift_right(middle, 32)
    return upper, (middle << 32) | (least & LOW)


def times_inverse(a: Arithmetic, bits: Any) -> tuple[Any, Any]:
    """The mantissa m of 2ᵉ·m times the bits of 2ᵉ·2/π from weight 2 on, modulo 4: 128 bits in two words."""
    m = (bits & ((1 << 52) - 1)) | (1 << 52)
    start = (a.shift_right(bits, 52) & 0x7FF) - 1075 + 22
    high, middle, low = window(a, start)
    carry, _ = times(a, m, low)
    upper, lower = times(a, m, middle)
    total = lower + carry
    overflow = a.shift_right((lower & carry) | ((lower | carry) & ~total), 63)  # what did not fit
    return m * high + upper + overflow, total


def window(a: Arithmetic, start: Any) -> list[Any]:
    """Three words of DIGITS from bit `start` on, counted from the highest."""
    digits = [DIGITS >> 64 * (WORDS - 1 - n) & (1 << 64) - 1 for n in range(WORDS)]
    words = [a.integer(word - (word >> 63 << 64)) for word in digits]
    for step in (8, 4, 2, 1):  # words first, then bits
        moved = (start & (64 * step)) != 0
        words = [a.select(moved, words[n + step], words[n]) for n in range(step + 2 + 1)]
    bit = start & 63
    return [(words[n] << bit) | a.shift_right(a.shift_right(words[n + 1], 1), 63 - bit) for n in range(3)]
