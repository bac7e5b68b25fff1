"""The page's requests to Python, answered as plain data: sentences, learned heads, altered formulas, quiz, cost.

Responsible for the kinds of request and their limits. Not for the contents of the answers, which come from `explain`
and `model`.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from clearhead.errors import InputError
from clearhead.explain import cost, quiz, what_if
from clearhead.explain.steps import Explanation, explain_vectors
from clearhead.rules.masks import window
from clearhead.view.learned import head_vectors, learned_heads
from clearhead.view.sentences import MOST_ITEMS_SHOWN, sentence_vectors

LONGEST_SENTENCE = 2000  # characters
MOST_DIMS_PLOTTED = 64
PAGE_ADVICE = {  # the advice for the command line, reworded for the page
    what_if.ROLES_ADVICE: "See it where they differ: choose other matrices, or a learned head.",
    what_if.EARLIER_ADVICE: "Choose an earlier row.",
}
COST_LENGTHS = (10, 100, 1_000, 10_000, 100_000, 1_000_000)


def answer(what: str, parameters: Mapping[str, str]) -> dict[str, Any]:
    """Answer one request by its name and its parameters. Raises InputError."""
    if what not in ANSWERS:
        raise InputError(f"{what} is not a known question: ask one of {', '.join(ANSWERS)}.")
    return ANSWERS[what](parameters)


def sentence_text(parameters: Mapping[str, str]) -> str:
    """The sentence in a request. Raises InputError for a long one."""
    text = parameters.get("text", "")
    if len(text) > LONGEST_SENTENCE:
        raise InputError(f"The sentence has {len(text)} characters: give at most {LONGEST_SENTENCE}.")
    return text


def page_explanation(parameters: Mapping[str, str]) -> Explanation:
    """Explain the vectors on the page at the chosen row.

    >>> page_explanation({"problem": '{"names": ["a", "b"], "q": [[1, 0], [0, 1]], "row": 1}'}).weights.round(4)
    array([0.2689, 0.7311])
    """
    try:
        problem = json.loads(parameters["problem"])
        names, q, row = [str(name) for name in problem["names"]], problem["q"], int(problem["row"])
        k, v = problem.get("k"), problem.get("v")
        scale, last = problem.get("scale"), problem.get("window")
        sizes = len(names), *(len(line) for x in (q, k, v) if x for line in x)
        mask = None if last is None else window(int(last) - 1)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError("The page asked about vectors without sending them: load it again.") from error
    if len(names) > MOST_ITEMS_SHOWN or max(sizes) > MOST_DIMS_PLOTTED:
        raise InputError(f"At most {MOST_ITEMS_SHOWN} items of {MOST_DIMS_PLOTTED} numbers are shown: take some away.")
    return explain_vectors(q, names, row, keys=k, values=v, scale=scale, mask=mask)


def consequence_answer(parameters: Mapping[str, str]) -> dict[str, Any]:
    """The consequence of another formula, in a sentence."""
    other = what_if.alter(page_explanation(parameters), parameters.get("formula", ""))
    text = f"{other.consequence} {PAGE_ADVICE.get(other.advice, '')}".rstrip()
    return {"formula": other.formula.plain, "consequence": text}


def quiz_answer(parameters: Mapping[str, str]) -> dict[str, Any]:
    """The quiz on the reader's numbers."""
    questions = [asdict(question) for question in quiz.questions(page_explanation(parameters))]
    for question in questions:  # the page counts from 1
        question["text"] = question["text"].removeprefix("Item 0, ")
        question["why"] = question["why"].replace("α₀₀", "α₁₁")
    return {"questions": questions}


def cost_answer(parameters: Mapping[str, str]) -> dict[str, Any]:
    """Multiply-adds of attention and of a recurrent network as texts grow."""
    dim = parameters.get("dim", "2")
    if not dim.lstrip("-").isdecimal():
        raise InputError(f"dim is {dim[:20]}: give a whole number.")
    d = min(max(int(dim), 1), MOST_DIMS_PLOTTED)
    return {"dim": d, "rows": [{"n": n} | cost.recurrence_counts(n, d) for n in COST_LENGTHS]}


ANSWERS: dict[str, Callable[[Mapping[str, str]], dict[str, Any]]] = {
    "sentence": lambda parameters: sentence_vectors(sentence_text(parameters)),
    "learned": lambda parameters: learned_heads(sentence_text(parameters)),
    "head": lambda parameters: head_vectors(sentence_text(parameters), parameters.get("head", "")),
    "consequence": consequence_answer,
    "questions": quiz_answer,
    "costs": cost_answer,
}
