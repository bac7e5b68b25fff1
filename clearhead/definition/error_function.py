"""erf and erfc: a series near 0, exp(−x²) times a slowly varying function elsewhere, so that the tail stays exact."""

from typing import Any

from clearhead.definition.arithmetic import Arithmetic, Fit, polynomial, quick_sum, scale, two_sum
from clearhead.definition.exponentials import exp_in_two

# erf(x) = x + x·ERF(x²) for |x| ≤ ¾
ERF = Fit(
    (0.1283791670955126, -0.37612638903183715, 0.11283791670952596, -0.026866170644428485,
     0.005223977615420539, -0.0008548326188759752, 0.00012055289567541706, -1.4924196305569617e-05,
     1.643068417974155e-06, -1.5940066854661717e-07, 1.1472499701094691e-08),
    (0.12837916706932712, -0.3761263844667974, 0.11283778642917985, -0.02686477180205234,
     0.00521678948992104, -0.0008356927920014206, 9.470461781593866e-05),
)  # fmt: skip
# (1 + 2x)·exp(x²)·erfc(x) = ERFC((x − 3½)/(x + 3½)) for x ≥ ¾, up to 28, or 11 for float32
ERFC = Fit(
    (1.2423492448711544, -0.14000918013761932, -0.010555596332221471, 0.0975190951532435,
     -0.11508959815995855, 0.08798315382545718, -0.04882332583459871, 0.01909933093243283,
     -0.004215019809404696, -0.00030226779440844186, 0.0005643835808567978, -0.00012151274971027537,
     -4.277786472057174e-05, 2.4261173727719876e-05, 2.3141073076511315e-06, -3.8114592353673123e-06,
     -1.6148942521679627e-08, 5.885501332255703e-07, -3.884799438493151e-08, -7.508377088805286e-08,
     1.5096806343417462e-08),
    (1.2423492448674311, -0.1400091801485987, -0.01055559539527339, 0.09751909643022827,
     -0.11508963637370144, 0.08798310831916262, -0.04882275481116765, 0.019100027449630397,
     -0.0042188780335969765, -0.0003073629874773313, 0.0005763045221126245, -0.00010383617569149929,
     -5.585795524966762e-05),
)  # fmt: skip
NEAR, MIDDLE, ZERO = 0.75, 3.5, 28.0  # erfc is 0 from the last on


def complement(a: Arithmetic, x: Any) -> Any:
    """erfc(x) for x ≥ ¾, exp(−x²) and the quotient by 1 + 2x both in two parts."""
    x = a.select(x > ZERO, ZERO, x)
    varying = polynomial(a, (x - MIDDLE) / (x + MIDDLE), ERFC)
    under, under_low = two_sum(a, x + x, 1.0)
    square, inverse = x * x, 1.0 / under
    q = varying * inverse
    if a.narrow:
        high, low, n = exp_in_two(a, -square)
        return scale(a, (high + low) * q, n)
    q_low = a.fma(-q, under_low, a.fma(-q, under, varying)) * inverse
    high, low, n = exp_in_two(a, -square, -a.fma(x, x, -square))
    return scale(a, a.fma(high, q, a.fma(high, q_low, low * q)), n)


def erf(a: Arithmetic, x: Any) -> Any:
    """2/√π times the integral of exp(−t²) from 0 to x."""
    size = a.size(x)
    near = a.fma(size, polynomial(a, size * size, ERF), size)
    return a.signed(a.select(size < NEAR, near, 1.0 - complement(a, size)), x)


def erfc(a: Arithmetic, x: Any) -> Any:
    """1 − erf(x)."""
    size = a.size(x)
    total, rest = quick_sum(a, 1.0, -x)
    near = total + a.fma(-x, polynomial(a, size * size, ERF), rest)
    far = complement(a, size)
    return a.select(size < NEAR, near, a.select(x < 0.0, 2.0 - far, far))
