"""A rule's function sees Python as it is at each call, whatever has changed since the last: as Python itself would."""

import enum
import math
import os
from collections import namedtuple
from dataclasses import dataclass, field
from functools import partial, wraps
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import clearhead
from clearhead import alibi, attend, attention, dense, functions, where
from clearhead.definition import textbook
from clearhead.errors import InputError
from clearhead.rules import current
from tests.kernels.combinations import in_turns

FACTOR = 2.0
SHIFTS = np.array([0.5, -1.0, 2.0, 0.0])
COUNTS = np.array([1, 2, 3, 4])
FROZEN = np.array([1.5, 0.5, 0.25, 3.0])
FROZEN.flags.writeable = False
SETTINGS: dict[str, Any] = {"factor": 2.0, "inner": {"shift": 1.0}}
POWERS = [1.0, 2.0]
SPACE = SimpleNamespace(factor=2.0)
MODULE = ModuleType("settings_of_a_program")
MODULE.factor, MODULE.table = 2.0, np.array([2.0, 3.0])  # type: ignore[attr-defined]
Pair = namedtuple("Pair", "factor shift")
PAIR = Pair(2.0, 1.0)


class Names:
    factor = 2.0


class Colour(enum.Enum):
    RED = 2.0


CHOSEN = Colour.RED


@dataclass
class Data:
    factor: float = 2.0
    parts: list[float] = field(default_factory=lambda: [1.0, 2.0])


DATA = Data()


class Model:
    shared = 2.0

    def __init__(self) -> None:
        self.factor, self.table, self._hidden = 2.0, np.array([1.0, 2.0]), 3.0

    @property
    def computed(self) -> float:
        return self._hidden * FACTOR

    @staticmethod
    def fixed(x: Any) -> Any:
        return x * FACTOR

    def helper(self, x: Any) -> Any:
        return x * self.factor

    def rule(self, score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
        seen = self.shared * SHIFTS[key % 4] + self.computed * self.table[0] * key
        return self.helper(score) + seen * 0.1 + self.fixed(score)

    def __call__(self, score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
        return self.helper(score)

    @classmethod
    def of_class(cls, score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
        return score * cls.shared


MODEL = Model()


class Watching:
    """Every attribute is made up when it is asked for."""

    def __init__(self) -> None:
        self.made = {"factor": 2.0}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.__dict__["made"][name]


MADE = Watching()


def twice(function: Any) -> Any:
    @wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args) * FACTOR

    return wrapper


def helper(x: Any) -> Any:
    return x * FACTOR


def by_default(
    score: Any, batch: Any, head: Any, query: Any, key: Any, factor: float = 2.0, *, shift: float = 1
) -> Any:
    return score * factor + shift * key


def closure() -> tuple[Any, Any]:
    factor = 2.0

    def rule(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
        return score * factor

    def change() -> None:
        nonlocal factor
        factor = -3.0

    return rule, change


@twice
def decorated(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return score + SHIFTS[key % 4]


def whole(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return score + SHIFTS.max() + np.exp(-SHIFTS)[key % 4] + sum(COUNTS) + COUNTS[1] * key


def chosen(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return score * 2 if SHIFTS[0] > 0 else -score


def sliced(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return score + SHIFTS[1:][key % 3] + SHIFTS[::-1][key % 4] + SHIFTS[[0, 2]][key % 2]


def dynamic(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return score * getattr(SPACE, "fac" + "tor") * globals()["FACTOR"] * float(os.environ["FACTOR"])


def imported(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    import settings_of_a_program  # type: ignore[import-not-found]

    return score * settings_of_a_program.factor


def missing(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return score * max([1, 2])


CODE = missing.__code__


def bound(factor: Any, score: Any, batch: Any, head: Any, query: Any, key: Any, *, table: Any) -> Any:
    return score * factor + table[key % 4]


PARTIAL = partial(bound, 2.0, table=SHIFTS)
CLOSED, CHANGE_CLOSED = closure()
RULES: dict[str, Any] = {
    "a name": lambda score, batch, head, query, key: score * FACTOR,
    "an array's name": lambda score, batch, head, query, key: score + SHIFTS[key % 4],
    "an array's numbers": lambda score, batch, head, query, key: score + SHIFTS[key % 4] * SHIFTS[0],
    "an array as a whole": whole,
    "an array's decision": chosen,
    "parts of an array": sliced,
    "a whole number of an array": lambda score, batch, head, query, key: score + key * COUNTS[2],
    "an array no longer read-only": lambda score, batch, head, query, key: score + FROZEN[key % 4] * max(FROZEN),
    "an array's shape": lambda score, batch, head, query, key: score * len(COUNTS.reshape(-1)) + COUNTS.shape[0] * key,
    "a closure": CLOSED,
    "a default": by_default,
    "a keyword's default": partial(by_default),
    "code": missing,
    "a helper's name": lambda score, batch, head, query, key: helper(score),
    "a helper": lambda score, batch, head, query, key: helper(score) + 1,
    "a decorator's name": decorated,
    "a partial call's keyword": PARTIAL,
    "a dict": lambda score, batch, head, query, key: score * SETTINGS["factor"],
    "a dict in a dict": lambda score, batch, head, query, key: score + SETTINGS["inner"]["shift"] * key,
    "a list": lambda score, batch, head, query, key: score * POWERS[0] + sum(POWERS) * key,
    "a longer list": lambda score, batch, head, query, key: score * len(POWERS),
    "a space": lambda score, batch, head, query, key: score * SPACE.factor,
    "a module": lambda score, batch, head, query, key: score * MODULE.factor,
    "a module's table": lambda score, batch, head, query, key: score * MODULE.table.max() + MODULE.table[1] * key,
    "a class": lambda score, batch, head, query, key: score * Names.factor,
    "a pair": lambda score, batch, head, query, key: score * PAIR.factor,
    "a choice": lambda score, batch, head, query, key: score * CHOSEN.value,
    "data": lambda score, batch, head, query, key: score * DATA.factor,
    "data's list": lambda score, batch, head, query, key: score * DATA.parts[1],
    "a method's object": MODEL.rule,
    "a method's class": MODEL.rule,
    "a method's property": MODEL.rule,
    "a method's table": MODEL.rule,
    "a method of a class": Model.of_class,
    "a static method's name": MODEL.rule,
    "a method that is hidden": MODEL.rule,
    "an object that is called": MODEL,
    "a made up attribute": lambda score, batch, head, query, key: score * MADE.factor,
    "a name in a text": dynamic,
    "the environment": dynamic,
    "a module that it imports": imported,
    "a built-in function's name": lambda score, batch, head, query, key: score * max([1, 2]),
    "math's constant": lambda score, batch, head, query, key: score * math.pi,
}  # fmt: skip


def assign(**names: Any) -> None:
    globals().update(names)


def writeable(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = True
    return array


def add(array: np.ndarray) -> None:
    array += 1


CHANGES: dict[str, Any] = {
    "a name": lambda: assign(FACTOR=-3.0),
    "an array's name": lambda: assign(SHIFTS=SHIFTS[::-1] * 2),
    "an array's numbers": lambda: add(SHIFTS),
    "an array as a whole": lambda: add(SHIFTS),
    "an array's decision": lambda: np.negative(SHIFTS, out=SHIFTS),
    "parts of an array": lambda: add(SHIFTS[2:]),
    "a whole number of an array": lambda: add(COUNTS),
    "an array no longer read-only": lambda: add(writeable(FROZEN)),
    "an array's shape": lambda: setattr(COUNTS, "shape", (2, 2)),
    "a closure": CHANGE_CLOSED,
    "a default": lambda: setattr(by_default, "__defaults__", (-3.0,)),
    "a keyword's default": lambda: by_default.__kwdefaults__.update(shift=5),
    "code": lambda: setattr(missing, "__code__", (lambda score, batch, head, query, key: -score).__code__),
    "a helper's name": lambda: assign(FACTOR=-3.0),
    "a helper": lambda: assign(helper=lambda x: -x),
    "a decorator's name": lambda: assign(FACTOR=-3.0),
    "a partial call's keyword": lambda: PARTIAL.keywords.update(table=COUNTS),
    "a dict": lambda: SETTINGS.update(factor=-3.0),
    "a dict in a dict": lambda: SETTINGS["inner"].update(shift=-3.0),
    "a list": lambda: POWERS.__setitem__(0, -3.0),
    "a longer list": lambda: POWERS.append(3.0),
    "a space": lambda: setattr(SPACE, "factor", -3.0),
    "a module": lambda: setattr(MODULE, "factor", -3.0),
    "a module's table": lambda: add(MODULE.table),
    "a class": lambda: setattr(Names, "factor", -3.0),
    "a pair": lambda: assign(PAIR=Pair(-3.0, 1.0)),
    "a choice": lambda: setattr(CHOSEN, "_value_", -3.0),
    "data": lambda: setattr(DATA, "factor", -3.0),
    "data's list": lambda: DATA.parts.reverse(),
    "a method's object": lambda: setattr(MODEL, "factor", -3.0),
    "a method's class": lambda: setattr(Model, "shared", -3.0),
    "a method's property": lambda: setattr(MODEL, "_hidden", -3.0),
    "a method's table": lambda: add(MODEL.table),
    "a method of a class": lambda: setattr(Model, "shared", 7.0),
    "a static method's name": lambda: assign(FACTOR=-3.0),
    "a method that is hidden": lambda: setattr(MODEL, "helper", lambda x: -x),
    "an object that is called": lambda: setattr(MODEL, "factor", 0.5),
    "a made up attribute": lambda: MADE.made.update(factor=-3.0),
    "a name in a text": lambda: setattr(SPACE, "factor", -3.0),
    "the environment": lambda: os.environ.update(FACTOR="-3"),
    "a module that it imports": lambda: setattr(MODULE, "factor", -3.0),
    "a built-in function's name": lambda: assign(max=lambda x: -3),
    "math's constant": lambda: setattr(math, "pi", -3.0),
}
UNWATCHED = {
    "a choice",
    "a method of a class",
    "a made up attribute",
    "a name in a text",
    "the environment",
    "a module that it imports",
}


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Every test begins with things as they are above."""
    monkeypatch.setenv("FACTOR", "2")
    monkeypatch.setitem(__import__("sys").modules, MODULE.__name__, MODULE)
    monkeypatch.setattr(math, "pi", math.pi)
    monkeypatch.setattr(Model, "shared", 2.0)
    before = {name: x for name, x in globals().items() if name != "max"}
    arrays = {name: (x, x.copy()) for name, x in before.items() if isinstance(x, np.ndarray)}
    yield
    globals().pop("max", None)
    globals().update(before)
    for array, numbers in arrays.values():
        array.flags.writeable = True
        array.shape = numbers.shape
        array[...] = numbers
    FROZEN.flags.writeable = False
    SETTINGS.update(factor=2.0, inner={"shift": 1.0})
    POWERS[:] = [1.0, 2.0]
    SPACE.factor, MODULE.factor, Names.factor, DATA.factor = 2.0, 2.0, 2.0, 2.0  # type: ignore[attr-defined]
    MODULE.table[:], MODEL.table[:] = [2.0, 3.0], [1.0, 2.0]
    DATA.parts[:] = [1.0, 2.0]
    MODEL.__dict__.pop("helper", None)
    MODEL.factor, MODEL._hidden, CHOSEN._value_ = 2.0, 3.0, 2.0
    MADE.made["factor"] = 2.0
    by_default.__defaults__, by_default.__kwdefaults__ = (2.0,), {"shift": 1}
    PARTIAL.keywords["table"] = SHIFTS
    missing.__code__ = CODE


X = np.random.default_rng(0).standard_normal((2, 9, 4))


def right(rule: Any) -> np.ndarray:
    return textbook.attention(X, X, X, score=rule)


@pytest.mark.parametrize(
    ("name", "form"),
    [*((name, "alone") for name in RULES), *in_turns(RULES, ["in a list", *["attend"] * 5], 1)],
)
def test_the_next_call_sees_what_has_changed(name: str, form: str) -> None:
    rule, change = RULES[name], CHANGES[name]
    score = [rule, alibi(2)] if form == "in a list" else rule

    def result() -> np.ndarray:
        return attend(X, X, X, score=score).output if form == "attend" else attention(X, X, X, score=score)

    for _ in range(2):
        before = result()
        np.testing.assert_allclose(before, right(score), atol=1e-12)
    change()
    after = result()
    np.testing.assert_allclose(after, right(score), atol=1e-12)
    assert np.abs(after - before).max() > 1e-3 or name == "a closure"


@pytest.mark.parametrize("name", RULES)
def test_what_can_be_watched_is_not_traced_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rule, traces = RULES[name], []
    first = attention(X, X, X, score=rule)
    own = vars(current)["trace_with_arrays"]
    monkeypatch.setattr(
        current, "trace_with_arrays", lambda *args, **options: traces.append(1) or own(*args, **options)
    )
    for _ in range(3):
        np.testing.assert_array_equal(attention(X, X, X, score=rule), first)
    assert len(traces) == (3 if name in UNWATCHED else 0)


def test_methods_of_two_objects_are_two_rules() -> None:
    one, two = Model(), Model()
    two.factor = -3.0
    for model in (one, two, one):
        np.testing.assert_allclose(attention(X, X, X, score=model.rule), right(model.rule), atol=1e-12)


class Alike:
    """All of them are equal, and do different things."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Alike)

    def __hash__(self) -> int:
        return 1

    def __call__(self, score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
        return score * self.factor


def test_objects_that_say_they_are_equal_are_told_apart() -> None:
    for rule in (Alike(2.0), Alike(-3.0), Alike(0.5)):
        np.testing.assert_allclose(attention(X, X, X, score=rule), right(rule), atol=1e-12)


def test_functions_that_do_the_same_share_what_is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    from clearhead.engine import launch_cache

    attention(X, X, X, score=lambda score, batch, head, query, key: functions.tanh(score) + SHIFTS[key % 4])
    made = []
    own = vars(launch_cache)["prepare"]
    monkeypatch.setattr(launch_cache, "prepare", lambda *given: made.append(1) or own(*given))
    for _ in range(3):
        attention(X, X, X, score=lambda score, batch, head, query, key: functions.tanh(score) + SHIFTS[key % 4])
    assert not made
    other = SHIFTS.copy()  # equal now, but not for ever
    rule = lambda score, batch, head, query, key: functions.tanh(score) + other[key % 4]  # noqa: E731
    attention(X, X, X, score=rule)
    assert made == [1]
    other += 1
    np.testing.assert_allclose(attention(X, X, X, score=rule), right(rule), atol=1e-12)


def test_a_function_that_fails_later_says_so_and_may_be_mended() -> None:
    rule = RULES["a dict"]
    first = attention(X, X, X, score=rule)
    del SETTINGS["factor"]
    for _ in range(2):
        with pytest.raises(ValueError, match="KeyError: 'factor'"):
            attention(X, X, X, score=rule)
    SETTINGS["factor"] = 2.0
    np.testing.assert_array_equal(attention(X, X, X, score=rule), first)


def test_a_name_that_hides_a_built_in_later_is_seen() -> None:
    rule = RULES["a built-in function's name"]
    attention(X, X, X, score=rule)
    globals()["max"] = lambda x: 5
    np.testing.assert_allclose(attention(X, X, X, score=rule), right(rule), atol=1e-12)


def test_weights_are_those_of_the_call_though_names_have_changed() -> None:
    from clearhead import KeyValueCache

    rule = RULES["a name"]
    cache = KeyValueCache()
    cache.append(X, X)
    done = [attend(X, X, X, score=rule), attend(X, cache, score=rule)]
    before = [np.asarray(one.weights) for one in done]
    assign(FACTOR=-3.0)
    for one, weights in zip(done, before, strict=True):
        np.testing.assert_array_equal(np.asarray(one.weights), weights)


def test_where_holds_what_it_was_made_of() -> None:
    table, far = np.arange(9), 3

    def near(batch: Any, head: Any, query: Any, key: Any) -> Any:
        return abs(table[query] - table[key]) < far

    mask = where(near)
    before = attention(X, X, X, mask=mask)
    far = 1
    table[:] = 0
    np.testing.assert_array_equal(attention(X, X, X, mask=mask), before)
    assert not np.array_equal(attention(X, X, X, mask=where(near)), before)


@pytest.mark.parametrize("writable", [True, False])
def test_tables_are_read_in_place_though_they_were_read_only(writable: bool) -> None:
    table = np.tri(300, dtype=bool)
    alias = table[:]
    table.flags.writeable = writable
    x, mask = np.random.default_rng(0).standard_normal((300, 4)), dense(table)
    for view in (alias, writeable(table) if writable else alias):
        np.testing.assert_allclose(attention(x, x, x, mask=mask), textbook.attention(x, x, x, mask=mask), atol=1e-12)
        view[200:, :130] ^= True
        np.testing.assert_allclose(attention(x, x, x, mask=mask), textbook.attention(x, x, x, mask=mask), atol=1e-12)


UNCALLED = [
    ("score", clearhead.softcap),
    ("score", clearhead.alibi),
    ("score", [clearhead.softcap(2.0), clearhead.bias]),
    ("mask", clearhead.causal),
    ("mask", clearhead.window),
    ("mask", where),
]


@pytest.mark.parametrize(("name", "given"), UNCALLED)
def test_what_makes_a_rule_is_no_rule(name, given):
    """A common slip: the parentheses are forgotten."""
    x = np.ones((3, 4))
    for compute in (attention, clearhead.attend, lambda q, k, v, **rules: clearhead.weights(q, k, **rules)):
        with pytest.raises(InputError, match=rf"{name} is clearhead\.\w+ itself.*call it, as clearhead\.\w+\(…\)"):
            compute(x, x, x, **{name: given})


def test_a_rule_without_a_module_is_taken():
    x, made = np.eye(3), {"__name__": None}
    exec("def twice(score, batch, head, query, key): return score * 2", made)  # noqa: S102
    np.testing.assert_array_equal(attention(x, x, x, score=made["twice"]), attention(x, x, x, score=clearhead.scale(2)))


def test_what_makes_a_rule_or_works_in_one_is_no_function_of_positions():
    x = np.ones((3, 4))
    with pytest.raises(InputError, match=r"where's function is clearhead\.causal itself.* call it, as"):
        where(clearhead.causal)
    with pytest.raises(InputError, match=r"score is clearhead\.functions\.tanh, which works on numbers: call it"):
        attention(x, x, x, score=functions.tanh)
