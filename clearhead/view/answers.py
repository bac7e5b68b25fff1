"""What the page asks of Python, each as plain data: sentences, learned heads, altered formulas, the quiz, the cost.

Decides which questions there are and what may be asked; what is said is explain's and the model's.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from clearhead.errors import InputError
from clearhead.explain import cost, quiz, what_if
from clearhead.explain.json import json_safe
from clearhead.explain.steps import Explanation, explain_vectors
from clearhead.rules.masks import window
from clearhead.view.learned import head, learned
from clearhead.view.sentences import MOST_ITEMS, sentence

LONGEST = 2000  # characters of a sentence
MOST_DIMS = 64
ADVICE = {  # the command line's, for the page
    what_if.ROLES_ADVICE: "See it where they differ: choose other matrices, or a learned head.",
    what_if.EARLIER_ADVICE: "Choose an earlier row.",
}
LENGTHS = (10, 100, 1_000, 10_000, 100_000, 1_000_000)


def answer(what: str, asked: Mapping[str, str]) -> dict[str, Any]:
    """Answer one question by its name and what it is about. Raises InputError."""
    if what not in ANSWERS:
        raise InputError(f"{what} is no question: ask one of {', '.join(ANSWERS)}.")
    return ANSWERS[what](asked)


def text_of(asked: Mapping[str, str]) -> str:
    """The sentence that is meant."""
    text = asked.get("text", "")
    if len(text) > LONGEST:
        raise InputError(f"The sentence has {len(text)} characters: give at most {LONGEST}.")
    return text


def explained(asked: Mapping[str, str]) -> Explanation:
    """The vectors on the page, explained at the chosen row.

    >>> explained({"problem": '{"names": ["a", "b"], "q": [[1, 0], [0, 1]], "row": 1}'}).weights.round(4)
    array([0.2689, 0.7311])
    """
    try:
        told = json.loads(asked["problem"])
        names, q, row = [str(name) for name in told["names"]], told["q"], int(told["row"])
        k, v = told.get("k"), told.get("v")
        scale, last = told.get("scale"), told.get("window")
        sizes = len(names), *(len(line) for x in (q, k, v) if x for line in x)
        mask = None if last is None else window(int(last) - 1)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError("The page asked about vectors without sending them: load it again.") from error
    if len(names) > MOST_ITEMS or max(sizes) > MOST_DIMS:
        raise InputError(f"At most {MOST_ITEMS} items of {MOST_DIMS} numbers are shown: take some away.")
    return explain_vectors(q, names, row, keys=k, values=v, scale=scale, mask=mask)


def consequence(asked: Mapping[str, str]) -> dict[str, Any]:
    """What another formula does, in a sentence."""
    other = what_if.alter(explained(asked), asked.get("formula", ""))
    text = f"{other.consequence} {ADVICE.get(other.advice, '')}".rstrip()
    return {"formula": other.formula.plain, "consequence": text}


def questions(asked: Mapping[str, str]) -> dict[str, Any]:
    """The quiz on the reader's own numbers."""
    told = [asdict(question) for question in quiz.questions(explained(asked))]
    for question in told:  # the page counts from 1
        question["text"] = question["text"].removeprefix("Item 0, ")
        question["why"] = question["why"].replace("α₀₀", "α₁₁")
    return {"questions": told}


def costs(asked: Mapping[str, str]) -> dict[str, Any]:
    """Multiply-adds of attention and of a recurrent network, as texts grow."""
    told = asked.get("dim", "2")
    if not told.lstrip("-").isdecimal():
        raise InputError(f"dim is {told[:20]}: give a whole number.")
    d = min(max(int(told), 1), MOST_DIMS)
    return {"dim": d, "rows": [{"n": n} | cost.recurrence_counts(n, d) for n in LENGTHS]}


def as_data(found: dict[str, Any]) -> bytes:
    """An answer as it is sent."""
    return json.dumps(json_safe(found), ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


ANSWERS: dict[str, Callable[[Mapping[str, str]], dict[str, Any]]] = {
    "sentence": lambda asked: sentence(text_of(asked)),
    "learned": lambda asked: learned(text_of(asked)),
    "head": lambda asked: head(text_of(asked), asked.get("head", "")),
    "consequence": consequence,
    "questions": questions,
    "costs": costs,
}
