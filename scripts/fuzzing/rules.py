"""Functions as rules, against Python's own answer for each pair.

Each case writes a random function of (score, batch, head, query, key): arithmetic on whole numbers, floats and
conditions, arrays of every dtype that it indexes, helpers, loops, inner functions, and in one case of eight what may
not be traced. Python calls it with plain numbers, pair by pair; clearhead must give the same number, or an error that
names the line, and that error too where Python has no number. One case in five goes through a kernel, which sees one
key at a time, so that the log-sum-exp is the score.
"""

import linecache
import math

import numpy as np

from clearhead import TraceError, attend, dense, functions, where, window
from clearhead.machine.target import native_isas
from clearhead.rules.evaluation import evaluate
from clearhead.rules.scores import SCORE_PARAMETERS
from clearhead.rules.trace import trace
from clearhead.testing import using_isa

BATCHES, HEADS, QUERIES, KEYS = 2, 2, 5, 7
SPECIAL = [0.0, -0.0, math.inf, -math.inf, math.nan, 1e-30, 3.5, -2.25]
INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]


class Nothing:
    """What has no value: a number read outside of an array, or divided by 0. What is made of it is nothing too."""

    __array_ufunc__ = None
    __hash__ = None

    def __init__(self, why):
        self.why = why

    def made(self, *_):
        """Nothing again."""
        return self

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = made
    __neg__ = __abs__ = __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __ne__ = __pow__ = made
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = made
    __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = __lshift__ = __rshift__ = made


NOTHING, LARGE = Nothing("an error"), Nothing("more than 64 bits")


def nothing_in(values):
    """The first of some values that is nothing."""
    return next((x for x in values if isinstance(x, Nothing)), None)


def strict(function):
    """A function that gives nothing where it is given nothing."""
    return lambda *args: nothing_in(args) or function(*args)


def held(x):
    """A whole number, or nothing if 64 bits do not hold it."""
    return x if isinstance(x, Nothing) else Whole(x) if -(2**63) <= x < 2**63 else LARGE


def counted(name):
    """A Python operator on whole numbers, whose result is looked at."""
    own = getattr(int, name)

    def method(self, *others):
        result = own(self, *others)
        return result if result is NotImplemented else held(result)

    return method


class Whole(int):
    """Python's whole number, as far as 64 bits hold it."""


for name in ("add", "radd", "sub", "rsub", "mul", "rmul", "neg", "abs", "lshift", "rshift", "pow"):
    setattr(Whole, f"__{name}__", counted(f"__{name}__"))


ROUNDED_ONCE = ("floor", "ceil", "rint", "trunc", "sqrt")
SMOOTH = ("exp", "tanh", "sin", "cos", "arctan", "expm1", "exp2", "sinh", "cosh")
NUMPYS = (*ROUNDED_ONCE, *SMOOTH, "fmod", "copysign", "isnan")


class Plain:
    """The words that functions are written in, on plain numbers of one float type."""

    def __init__(self, kind):
        self.kind = kind
        for name in NUMPYS:
            setattr(self, name, strict(getattr(np, name)))
        self.square = strict(lambda x: x * x)
        self.minimum = strict(lambda a, b: a if a < b or a != a else b)
        self.maximum = strict(lambda a, b: a if a > b or a != a else b)
        self.fmin = strict(lambda a, b: a if a <= b or b != b else b)
        self.fmax = strict(lambda a, b: a if a >= b or b != b else b)
        self.sign = strict(lambda x: (x > 0) - (x < 0) if x == x else x)
        self.floordiv = strict(lambda a, b: held(a // b) if b else NOTHING)
        self.mod = strict(lambda a, b: held(a % b) if b else NOTHING)
        self.inverted = strict(lambda x: not x)
        self.sigmoid = strict(lambda x: 1 / (1 + np.exp(-x)))

    def clip(self, x, low, high):
        """As numpy's."""
        return self.minimum(self.maximum(x, low), high)

    def where(self, condition, a, b):
        """The side that is chosen, as a float if either is one."""
        if isinstance(condition, Nothing):
            return condition
        chosen, other = (a, b) if condition else (b, a)
        return self.as_float(chosen) if isinstance(other, float | np.floating) else chosen

    def as_float(self, x):
        """A whole number or a condition as a float."""
        return x if isinstance(x, Nothing) else self.kind(int(x) if isinstance(x, int) else x)

    def both(self, a, b):
        """Whether both hold: not, if one does not, whatever the other is."""
        return False if any(not x for x in (a, b) if not nothing_in([x])) else nothing_in((a, b)) or True

    def either(self, a, b):
        """Whether one holds."""
        return True if any(x for x in (a, b) if not nothing_in([x])) else nothing_in((a, b)) or False

    def at(self, table, *index):
        """An element, as a plain number."""
        if nothing_in(index):
            return nothing_in(index)
        if not all(-n <= i < n for i, n in zip(index, table.shape, strict=True)):
            return NOTHING
        number = table[index].item()
        if isinstance(number, float):
            return self.kind(number)
        return number if isinstance(number, bool) else held(number) if number < 2**63 else NOTHING


class Author:
    """Writes a function twice: for clearhead, and for Python's plain numbers."""

    def __init__(self, rng):
        self.rng = rng
        self.tables, self.rough = {}, False  # rough: through a function that may differ in the last digits
        self.lines, self.known = ([], []), {"int": [], "float": [], "bool": []}
        self.exact = False  # within a condition

    def pick(self, options):
        """One of several."""
        return options[int(self.rng.integers(len(options)))]

    def chance(self, p):
        """Whether something with probability p happens."""
        return self.rng.random() < p

    def table(self, kind, axes):
        """A new captured array's name."""
        name = f"{kind[0].upper()}{len(self.tables)}"
        shape = tuple(int(n) for n in self.rng.integers(1, 9, axes))
        if kind == "float":
            x = self.rng.standard_normal(shape).astype(self.pick([np.float16, np.float32, np.float64]))
        elif kind == "bool":
            x = self.rng.random(shape) < 0.5
        else:
            dtype = np.dtype(self.pick(INTEGERS))
            low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
            if self.chance(0.8):
                low, high = max(low, -3), min(high, 9)
            x = self.rng.integers(low, high, shape, dtype=dtype, endpoint=True)
        x = self.pick([x, x[::-1], np.asfortranarray(x)])
        x.flags.writeable = self.chance(0.8)
        self.tables[name] = x
        return name

    def load(self, kind, depth):
        """An element of an array."""
        axes = self.pick([1, 1, 2])
        alike = [n for n, x in self.tables.items() if n[0].lower() == kind[0] and x.ndim == axes]
        name = self.pick(alike) if alike and self.chance(0.5) else self.table(kind, axes)
        shape = self.tables[name].shape
        index = [self.inside(n, depth - 1) if self.chance(0.7) else self.int(depth - 1) for n in shape]
        # A place that is the same for all pairs would be read by numpy, whose narrow numbers wrap.
        ours, plain = (", ".join(f"{x} + 0 * key" for x in side) for side in zip(*index, strict=True))
        return f"{name}[{ours}]", f"at({name}, {plain})"

    def inside(self, size, depth):
        """A whole number from −size to size − 1."""
        a, b = self.int(depth)
        match int(self.rng.integers(3)):
            case 0:
                return f"({a}) % {size}", f"mod({b}, {size})"
            case 1:
                return f"np.clip({a}, {-size}, {size - 1})", f"np.clip({b}, {-size}, {size - 1})"
        return f"np.minimum(abs({a}), {size - 1})", f"np.minimum(abs({b}), {size - 1})"

    def two(self, op, x, y, word=None):
        """An operator between two."""
        (a, b), (c, d) = x, y
        return f"({a} {op} {c})", f"{word}({b}, {d})" if word else f"({b} {op} {d})"

    def divided(self, op, x, y, word):
        """A quotient or a rest; a divisor that is the same for all pairs would be numpy's, which divides by 0."""
        return self.two(op, x, (f"({y[0]} + 0 * key)", y[1]), word)

    def call(self, word, *args, plain=None):
        """A function of some."""
        return f"{word}({', '.join(a for a, _ in args)})", f"{plain or word}({', '.join(b for _, b in args)})"

    def same(self, *options):
        """A word that is written alike in both."""
        text = self.pick(options)
        return text, text

    def as_float(self, x):
        """What is a float beside another one; a number that is the same for all pairs would be numpy's, of 64 bits."""
        return f"({x[0]} + 0 * key)", f"as_float({x[1]})"

    def int(self, depth):
        """A whole number."""
        if self.known["int"] and self.chance(0.2):
            return self.same(*self.known["int"])
        if depth <= 0 or self.chance(0.15):
            if self.chance(0.5):
                return self.same("batch", "head", "query", "key", "query", "key")
            number = self.pick(
                ["0", "1", "2", "3", "-1", "-4", "WHOLE", "100003", "2**31 - 1", "-2**31", "3 * 10**9", "2**40"]
            )
            return f"({number})", f"Whole({number})"

        def part():
            return self.int(depth - 1)

        options = [
            lambda: self.two("+", part(), part()), lambda: self.two("-", part(), part()),
            lambda: self.two("*", part(), part()), lambda: self.divided("//", part(), part(), "floordiv"),
            lambda: self.divided("%", part(), part(), "mod"), lambda: self.call("np.minimum", part(), part()),
            lambda: self.call("np.maximum", part(), part()), lambda: self.call("abs", part()),
            lambda: self.call("-", part()), lambda: self.call("np.where", self.bool(depth - 1), part(), part()),
            lambda: self.two("*", self.bool(depth - 1), self.same("1", "2", "-3")),
            lambda: self.two("<<", part(), self.same("0", "1", "3", "20")),
            lambda: self.two(">>", part(), self.same("0", "1", "3", "33")),
            lambda: self.two("**", part(), self.same("1", "2", "3")), lambda: self.call("np.sign", part()),
            lambda: self.load("int", depth), lambda: self.load("int", depth), lambda: self.call("twice", part()),
            lambda: self.call("np.fmax", part(), part()), lambda: self.call("np.square", part()),
        ]  # fmt: skip
        return self.pick(options)()

    def float(self, depth):
        """A float of the computation's type."""
        if self.known["float"] and not self.exact and self.chance(0.2):
            return self.same(*self.known["float"])
        if depth <= 0 or self.chance(0.15):
            return self.same("score", "score", "f(0.5)", "f(-3)", "f(0.1)", "f(FLOAT)")

        def part():
            return self.float(depth - 1)

        options = [
            lambda: self.two("+", part(), part()), lambda: self.two("-", part(), part()),
            lambda: self.two("*", part(), part()), lambda: self.two("/", part(), part()),
            lambda: self.call("np.minimum", part(), part()), lambda: self.call("np.maximum", part(), part()),
            lambda: self.call("np.fmin", part(), part()), lambda: self.call("np.fmax", part(), part()),
            lambda: self.call("-", part()), lambda: self.call("abs", part()), lambda: self.load("float", depth),
            lambda: self.call("np.clip", part(), ("-1.5", "-1.5"), ("2", "2")), lambda: self.load("float", depth),
            lambda: self.call("np.where", self.bool(depth - 1), part(), part()),
            lambda: self.call("np.where", self.bool(depth - 1), part(), self.int(depth - 1)),
            lambda: self.two("*", ("f(1)", "f(1)"), self.as_float(self.int(depth - 1))),
            lambda: self.two("+", part(), self.as_float(self.int(depth - 1))),
            lambda: self.two("*", part(), self.as_float(self.bool(depth - 1))),
            lambda: self.call("np.square", part()), lambda: self.call("twice", part()),
            lambda: self.call(f"np.{self.pick(ROUNDED_ONCE)}", part()), lambda: self.smooth(part()),
            lambda: self.call(self.pick(["np.fmod", "np.copysign"]), part(), part()),
            lambda: self.two(self.pick(["//", "%"]), self.as_float(part()), part()),
            lambda: self.two("*", part(), ("2.5", "2.5")),
        ]  # fmt: skip
        return self.pick(options)()

    def smooth(self, x):
        """A function that both compute to the last digits only; no condition asks for it."""
        if self.exact:
            return x
        self.rough = True
        bounded = self.call("np.clip", x, ("-9", "-9"), ("9", "9"))
        return self.call(self.pick(["sigmoid", "log1", *(f"np.{name}" for name in SMOOTH)]), bounded)

    def bool(self, depth):
        """A condition."""
        if self.known["bool"] and self.chance(0.2):
            return self.same(*self.known["bool"])
        compare = self.pick(["<", "<=", ">", ">=", "==", "!="])
        if depth <= 0 or self.chance(0.3):
            return self.two(compare, self.int(min(depth, 1) - 1), self.int(min(depth, 1) - 1))

        def part():
            return self.bool(depth - 1)

        options = [
            lambda: self.two(compare, self.int(depth - 1), self.int(depth - 1)),
            lambda: self.of_floats(compare, depth - 1), lambda: self.two("&", part(), part(), "both"),
            lambda: self.two("|", part(), part(), "either"), lambda: self.two("^", part(), part()),
            lambda: self.inverted(*part()), lambda: self.two("==", part(), part()),
            lambda: self.load("bool", depth), lambda: self.call("np.where", part(), part(), part()),
            lambda: self.call("np.logical_or", part(), part(), plain="either"),
        ]  # fmt: skip
        return self.pick(options)()

    def inverted(self, ours, plain):
        """The contrary of a condition, which is never Python's own, whose ~ is another."""
        return f"~({ours} | (key != key))", f"inverted({plain})"

    def of_floats(self, compare, depth):
        """A comparison of floats that are equal to the bit."""
        before, self.exact = self.exact, True
        found = self.two(compare, self.float(depth), self.float(depth))
        self.exact = before
        return found

    def line(self, ours, plain=None):
        """One line of the function."""
        self.lines[0].append(ours)
        self.lines[1].append(plain or ours)

    def let(self, text, value):
        """A line with a value in it."""
        self.line(text.format(value[0]), text.format(value[1]))

    def statement(self):
        """A line, or a few, before the last."""
        kind = self.pick(["int", "float", "bool"])
        name = f"t{len(self.lines[0])}"
        write = getattr(self, kind)
        match int(self.rng.integers(6)):
            case 0 if kind != "bool":
                self.let(f"{name} = {{}}", write(2))
                self.line(f"for step in range({self.pick([1, 2, 3])}):")
                ours, plain = write(1)
                step = "as_float(step)" if kind == "float" else "step"
                self.line(f"    {name} = {name} + {ours} * step", f"    {name} = {name} + {plain} * {step}")
            case 1:
                self.line("if FLAG:")
                self.let(f"    {name} = {{}}", write(2))
                self.line("else:")
                self.let(f"    {name} = {{}}", write(1))
            case 2:
                self.line(f"def inner{name}(x):")
                self.let("    return {}", write(2))
                self.line(f"{name} = inner{name}(key)")
            case 3:
                self.let(f"{name}, other = {{}}, 1", write(2))
            case 4 if kind == "int":
                self.let(f"{name} = sum([{{}}, 2, 3])", write(2))
            case _:
                self.let(f"{name} = {{}}", write(2))
        if kind != "float" or not self.rough:
            self.known[kind].append(name)

    def function(self, result):
        """The lines of a function that gives a `result`."""
        for _ in range(int(self.rng.integers(0, 4))):
            self.statement()
        self.let("return {}", getattr(self, result)(4))


UNUSUAL = [
    "score if score > 0 else -score", "max(score, 0)", "min(key, 3)", "score * (key and query)", "score * (not key)",
    "int(score)", "float(key)", "round(score)", "math.floor(score)", "math.exp(score)",
    "{0: 1.0, 1: 2.0}[head] * score", "{0: 1.0}.get(head, 0.0) + score", "[1, 2, 3][head] + score", "score ** 0.5",
    "score ** -1", "2 ** key", "key ** query", "score * (key & 3)", "score * ~key", "score * (key | 1)",
    "score * ((key > 1) + (query > 1))", "score * -(key > 1)", "score * (key in (1, 2))", "score // 2", "score % 2",
    "np.floor(score)", "np.round(score, 1)", "score * (1 << key)", "score * sum(x for x in range(key))",
    "score * (0 < key < 3)", "score * any([key > 1, query > 2])", "score * len([key])", "score * (key, query)[1]",
    "score * divmod(key, 3)[1]", "score * sorted([key, query])[0]", "score * {key: 1}[key]",
    "score * (key == 1 or query == 2)", "score * (1 if key else 2)", "np.array([score, key]).sum()",
    "np.array_equal(key, 1) * score", "score * np.isin(key, [1, 2])", "score * (key is None)",
    "score * np.arctan(key)", "str(score) and score", "score.real", "score + key.bit_length()",
    "score * np.cumsum(key)", "score * np.float64(key)", "score * isinstance(key, int)",
    "score * isinstance(score, float)", "score * (lambda x: x if x > 2 else 1)(key)", "score * (key % 0)",
    "score * (key // 0)", "score + np.right_shift(key, 1)", "score + key % -3", "score + (-key) // 2",
    "score + key * 3 // -2 % 5", "score * (key > 1) ** 2", "score * abs(key > 2)",
    "score * ((key > 1) * (query > 2))", "caught(lambda: 1 // key) * score", "caught(lambda: LIST[key]) * score",
    "caught(lambda: int(score)) * score", "caught(lambda: 2) * score", "score * key ** 0", "score + (key > 2) // 2",
    "score * (query - key) % 3", "score + np.mod(key, 3)", "score + np.floor_divide(key, 2)",
    "score + np.fmod(key, 3)", "score + key.real", "score * (key == True)", "score * (True if head == 0 else False)",
    "score + np.power(key, 2)", "score + key / 2",
]  # fmt: skip


def caught(function):
    """What a function gives, or 0."""
    try:
        return function()
    except Exception:
        return 0


def log1(x):
    """ln(|x| + 1)."""
    return np.log(abs(x) + 1)


def build(text, names, name):
    """A function of a text, whose lines errors can quote."""
    file = f"<{name}>"
    linecache.cache[file] = (len(text), None, text.splitlines(True), file)
    exec(compile(text, file, "exec"), names)  # noqa: S102
    return names["rule"], file


def text_of(lines):
    """A function's text."""
    return "def rule(score, batch, head, query, key):\n" + "".join(f"    {line}\n" for line in lines)


def case(seed):
    """A function's text, for clearhead and for plain numbers, what it gives, and the names that it knows."""
    rng = np.random.default_rng(seed)
    kind = np.float32 if rng.random() < 0.5 else np.float64
    author = Author(rng)
    names = {"FLAG": author.chance(0.5), "WHOLE": int(rng.integers(-5, 50)), "FLOAT": float(rng.standard_normal())}
    names |= {"f": kind, "twice": lambda x: x * 2}
    if seed % 8 == 7:
        text = text_of([f"return {author.pick(UNUSUAL)}"])
        return rng, kind, (text, text), "float", names | {"math": math, "caught": caught, "LIST": [1, 2, 3]}, True
    result = author.pick(["float", "float", "float", "int", "bool"])
    author.function(result)
    return rng, kind, (text_of(author.lines[0]), text_of(author.lines[1])), result, names | author.tables, author.rough


def words(kind):
    """What Python's functions are written in."""
    plain = Plain(kind)
    names = ("floordiv", "mod", "both", "either", "inverted", "at", "sigmoid", "as_float")
    return {name: getattr(plain, name) for name in names} | {"np": plain, "log1": strict(log1), "Whole": Whole}


def problem(rng, kind):
    """Queries, keys and values of one dim, and each pair's score: one product."""
    q, k = (rng.standard_normal((BATCHES, HEADS, n, 1)).astype(kind) for n in (QUERIES, KEYS))
    for x in (q, k):
        special = rng.random(x.shape) < 0.1
        x[special] = rng.choice(SPECIAL, special.sum())
    with np.errstate(all="ignore"):
        return q, k, rng.standard_normal(k.shape).astype(kind), q * k[..., 0][..., None, :] + kind(0)


def answers(plain, scores):
    """Python's answer for each pair."""
    wanted = np.empty(scores.shape, object)
    with np.errstate(all="ignore"):
        for place in np.ndindex(scores.shape):
            try:
                wanted[place] = plain(scores[place], *map(Whole, place))
            except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError):
                wanted[place] = NOTHING
    return wanted


def has_value(wanted):
    """Where Python has an answer."""
    return np.array([not isinstance(x, Nothing) for x in wanted.ravel()], bool).reshape(wanted.shape)


def compare(found, wanted, kind, rough):
    """Equal where Python has an answer: to the bit, or to the last digits if it is rough."""
    there = has_value(wanted)
    if not there.any():
        return
    with np.errstate(all="ignore"):
        right = np.array([kind(int(x)) if isinstance(x, int) else kind(x) for x in wanted[there]])
        found = np.broadcast_to(found, wanted.shape)[there].astype(kind)
        size = max(1.0, float(np.max(np.abs(right), where=np.isfinite(right), initial=1.0)))
        near = rough & (np.abs(found * 1.0 - right) <= (1e-3 if kind == np.float32 else 1e-9) * size)
    same = (found == right) | ((found != found) & (right != right)) | near
    assert same.all(), f"{(~same).sum()} of {same.size} differ: {found[~same][0]!r}, Python has {right[~same][0]!r}"


def check_line(error, file):
    """An error names the line."""
    assert f"{file}, line " in str(error), f"an error without its line: {error}"


def check_kernel(rng, rule, wanted, operands, file, result, rough):
    """Attention that sees one key at a time: the log-sum-exp is the score, or tells whether the key is seen."""
    q, k, v, scores = operands
    seen = np.zeros((QUERIES, KEYS), bool)
    isas = native_isas()
    with using_isa(isas[int(rng.integers(len(isas)))] if rng.random() < 0.3 else isas[0]), np.errstate(all="ignore"):
        for key in range(KEYS):
            seen[...] = np.arange(KEYS) == key
            column, own = wanted[..., key], scores[..., key]
            why = {x.why for x in column.ravel() if isinstance(x, Nothing)}
            placed = dense(seen) & window(None, None, align="start")
            rules = {"mask": placed & where(rule)} if result == "bool" else {"mask": placed, "score": rule}
            try:
                lse = attend(q, k, v, **rules, scale=1.0, threads=1).lse
            except TraceError as error:
                check_line(error, file)
                assert why or "64 bits" in str(error), f"refused, though Python has every answer: {error}"
                continue
            assert NOTHING.why not in why, f"no error, though Python has none for key {key}"
            if result == "bool":
                for place in np.argwhere(has_value(column)):
                    column[tuple(place)] = own[tuple(place)] if column[tuple(place)] else -np.inf
            infinite = np.array([not isinstance(x, Nothing) and x == np.inf for x in column.ravel()]).reshape(lse.shape)
            compare(np.where(infinite, np.inf, lse), column, q.dtype.type, rough)


def check(seed):
    """One function."""
    with np.errstate(all="ignore"):
        check_function(seed)


def check_function(seed):
    """One function, whatever its numbers do."""
    rng, kind, lines, result, names, rough = case(seed)
    unusual = seed % 8 == 7
    rule, file = build(lines[0], {"np": np, "sigmoid": functions.sigmoid, "log1": log1, **names}, "rule")
    plain, _ = build(lines[1], {"np": np, **names, **({} if unusual else words(kind))}, "plain")
    operands = problem(rng, kind)
    scores = operands[-1]
    own, fixed = rule, plain
    if result == "bool":
        rule = lambda batch, head, query, key: own(kind(0.5), batch, head, query, key)  # noqa: E731
        plain = lambda score, *place: fixed(kind(0.5), *place)  # noqa: E731
    wanted = answers(plain, scores)
    try:
        formula = trace(rule, SCORE_PARAMETERS[1:] if result == "bool" else SCORE_PARAMETERS)
    except TraceError as error:
        check_line(error, file)
        known = "operations wait", "64 bits", "ZeroDivisionError", "OverflowError", "no single number"  # of constants
        assert unusual or any(words in str(error) for words in known), error
        return
    place = np.ogrid[tuple(map(slice, scores.shape))]
    leaves = {"score": scores} | dict(zip(SCORE_PARAMETERS[1:], place, strict=True))
    if not any(x is LARGE for x in wanted.ravel()):
        compare(evaluate(formula, leaves, dtype=kind), wanted, {"float": kind, "int": int, "bool": bool}[result], rough)
    if unusual or rng.random() < 0.2:
        check_kernel(rng, rule, wanted, operands, file, result, rough)


def describe(seed):
    """The function as it is written, and what it captures."""
    _, kind, lines, _, names, _ = case(seed)
    tables = {name: f"{x.dtype}{x.shape}" for name, x in names.items() if isinstance(x, np.ndarray)}
    return f"{kind.__name__} {tables}\n{lines[0]}"
