"""What functions of score rules are measured by: mpmath's values, errors in units of the last place, and arguments.

docs/functions.md says how large an error may be; BOUNDS is its table.
"""

import re
from pathlib import Path

import mpmath
import numpy as np
from mpmath import mpf

from clearhead.definition.elementary import Functions

PAGE = Path(__file__).parents[2] / "docs/functions.md"
ROW = re.compile(r"^\| `(\w+)` \| ([\d.]+) \| ([\d.]+) \|", re.M)
BOUNDS = {name: {"float32": float(a), "float64": float(b)} for name, a, b in ROW.findall(PAGE.read_text())}
OF_TWO = "pow", "atan2"
BITS = {"sin": 1200, "cos": 1200, "tan": 1200}  # the largest angles have 1024 before the point
FAR = {"float32": 90.0, "float64": 712.0}  # where exp leaves the range
LIMITS = {"log": 0.0, "log2": 0.0, "log10": 0.0, "log1p": -1.0, "sqrt": 0.0}  # where the domain begins
NAMED_ALIKE = [
    "exp", "log", "sqrt", "expm1", "log10", "log1p", "sin", "cos", "tan", "asin", "acos", "atan", "atan2", "sinh",
    "cosh", "tanh", "erf",
]  # fmt: skip
EXACT = {
    **{name: getattr(mpmath, name) for name in NAMED_ALIKE},
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "log2": lambda x: mpmath.log(x, 2),
    "exp2": lambda x: mpmath.power(2, x),
    "softplus": lambda x: mpmath.log1p(mpmath.exp(x)),
    "erfc": lambda x: mpmath.erfc(min(x, mpf(1000))),
    "pow": mpmath.power,
    "cbrt": lambda x: mpmath.sign(x) * mpmath.cbrt(abs(x)),
}


def units(got, exact):
    """How far a float is from the exact value, in units of that value's last place; ∞ is right beyond the largest."""
    info = np.finfo(got.dtype)
    if abs(exact) >= mpf(2) ** info.maxexp * (1 - mpf(2) ** -(info.nmant + 2)):
        return 0.0 if np.isinf(got) and (got > 0) == (exact > 0) else np.inf
    if not np.isfinite(got):
        return np.inf
    exponent = max(mpmath.frexp(exact)[1] - 1, info.minexp) if exact else info.minexp
    return float(abs(mpf(float(got)) - exact) / mpf(2) ** (exponent - info.nmant))


def worst(name, *arguments):
    """The largest error of a function over arguments, and where it is."""
    with np.errstate(all="ignore"):
        found = np.sqrt(*arguments) if name == "sqrt" else getattr(Functions, name)(*arguments)
    with mpmath.workprec(BITS.get(name, 120)):
        errors = [
            units(got, EXACT[name](*(mpf(float(x)) for x in row)))
            for got, row in zip(found, zip(*arguments, strict=True), strict=True)
        ]
    at = int(np.argmax(errors))
    return errors[at], tuple(float(x[at]) for x in arguments)


def any_floats(rng, dtype, count):
    """Floats of any bits but those of ∞ and of what is not a number."""
    x = rng.integers(0, 256, (count, np.dtype(dtype).itemsize), np.uint8).view(dtype)[:, 0]
    return x[np.isfinite(x)]


def signed(rng, size):
    """Numbers of these sizes, of either sign."""
    return size * rng.choice([-1.0, 1.0], size.shape)


def arguments(name, dtype, count, seed):
    """About `count` arguments, or pairs, in the function's domain: of every size, and of those where it is hard."""
    rng, n = np.random.default_rng(seed), count // 8
    far = FAR[np.dtype(dtype).name]
    with np.errstate(all="ignore"):
        if name in OF_TWO:
            return pairs(name, dtype, n, rng)
        parts = [
            any_floats(rng, dtype, n), rng.uniform(-far, far, n), rng.uniform(-1, 1, n), rng.uniform(-8, 8, n),
            1 + rng.standard_normal(n) * 10 ** rng.uniform(-16, -1, n), signed(rng, 10 ** rng.uniform(-10, 10, n)),
            rng.integers(-1000, 1000, n) * (np.pi / 4), rng.uniform(5, 29, n),
            np.finfo(dtype).smallest_subnormal * np.arange(-9, 9), np.array([np.finfo(dtype).max, 0.75, 0.5, 1.0]),
        ]  # fmt: skip
        x = np.concatenate([np.asarray(part).astype(dtype) for part in parts])
    x = x[np.isfinite(x)]
    if name in ("asin", "acos"):
        return (x[np.abs(x) <= 1],)
    return (x[x > LIMITS.get(name, -np.inf)],)


def pairs(name, dtype, n, rng):
    """Pairs for pow, whose results fill the whole range, or for atan2."""
    if name == "atan2":
        y, x = (signed(rng, 10 ** rng.uniform(-3, 3, 6 * n)).astype(dtype) for _ in range(2))
        y, x = (np.concatenate([part, any_floats(rng, dtype, 2 * n)[:n]]) for part in (y, x))
        info = np.finfo(dtype)
        alike = np.exp2(rng.uniform(info.minexp - 20, info.maxexp, n))
        alike = [alike * rng.uniform(0.01, 1, n) for _ in range(2)]
        return tuple(np.concatenate([part, more.astype(dtype)]) for part, more in zip((y, x), alike, strict=True))
    far = FAR[np.dtype(dtype).name] * 1.05
    x = np.concatenate(
        [10 ** rng.uniform(-4, 4, 2 * n), 10 ** rng.uniform(-37, 37, n), 1 + 10 ** rng.uniform(-6, 0, 2 * n)]
    )
    x = np.concatenate([x, np.abs(any_floats(rng, dtype, n)).astype(float)]).astype(dtype)
    y = (rng.uniform(-far, far, x.size) / np.log(x.astype(float))).astype(dtype)
    whole = rng.integers(-30, 30, n).astype(dtype)
    x, y = np.concatenate([x, -rng.uniform(0, 9, n).astype(dtype)]), np.concatenate([y, whole])
    good = np.isfinite(x) & np.isfinite(y) & (x != 0)
    return x[good], y[good]


def angles_near_quarter_turns(dtype):
    """For every exponent, the two floats closest to a multiple of π/2, by the continued fraction of 2ᵉ·2/π."""
    info, found = np.finfo(dtype), []
    digits = info.nmant + 1
    with mpmath.workprec(1400):
        for exponent in range(-digits, info.maxexp - digits):
            rest, before, now = mpmath.ldexp(2 / mpmath.pi, exponent), 0, 1
            mantissas = [1]
            while now < 2**digits:
                mantissas.append(now)
                rest = 1 / (rest - mpmath.floor(rest))
                before, now = now, int(mpmath.floor(rest)) * now + before
            found += [mpmath.ldexp(m, exponent) for m in mantissas[-2:]]
        return np.array([float(x) for x in found]).astype(dtype)
