"""The command `clearhead explain`: the page that its options ask for.

Responsible for the combinations of options. Not for the contents of the pages.
"""

import re
import shutil
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

from clearhead.errors import InputError
from clearhead.explain import inputs, quiz
from clearhead.explain.matrices import read_matrices
from clearhead.explain.pages import LayerPage, LessonPage, Page, WhatIfPage, WorkedPage
from clearhead.explain.roles import scene
from clearhead.explain.steps import Explanation
from clearhead.files.text import read_text
from clearhead.rules.mask_kinds import Mask
from clearhead.rules.masks import CAUSAL
from clearhead.rules.scores import Score


@dataclass(frozen=True)
class ExplainRequest:
    """The options given on the command line."""

    text: tuple[str, ...] = ()
    attends_to: str | None = None
    vectors: Path | None = None
    qkv: Path | None = None
    roles: bool = False
    embeddings: Path | None = None
    position: str = "-1"
    mask: Mask | None = None  # None is the default: causal, or full for another text
    rules: tuple[Score, ...] = ()
    matrix: bool = False
    what_if: str | None = None
    steps: str | None = None
    quiz: bool = False
    layer: bool = False
    weights: Path | None = None
    heads: int | None = None
    model: str | None = None
    head: str | None = None


def requested_page(request: ExplainRequest) -> Page:
    """The page that the options ask for; raises InputError for options that do not combine."""
    check_combination(request)
    if request.model:
        return model_page(request)
    e = requested_explanation(request)
    if request.layer:
        matrices = read_matrices(request.weights) if request.weights else None
        default = 1 if matrices or e.x.shape[1] % 2 else 2
        return LayerPage(e, request.heads or default, matrices)
    if request.steps and not request.quiz:
        return LessonPage(e, request.steps)
    if request.what_if:
        return WhatIfPage(e, request.what_if)
    if request.quiz:
        return quiz.QuizPage(e)
    return WorkedPage(e, request.matrix, designed=request.roles)


def check_combination(request: ExplainRequest) -> None:
    """Raise InputError for options that do not combine, naming them."""
    sources = {
        "a text": bool(request.text), "--vectors": bool(request.vectors), "--qkv": bool(request.qkv),
        "--roles": request.roles,
    }  # fmt: skip
    given = [name for name, is_given in sources.items() if is_given]
    if len(given) != 1:
        what = f"{' and '.join(given)} are several things" if given else "Nothing"
        raise InputError(f"{what} to explain: give one of a text, --vectors FILE, --qkv FILE and --roles.")
    pages = {
        "--matrix": request.matrix, "--what-if": bool(request.what_if), "--steps": bool(request.steps),
        "--quiz": request.quiz and request.steps != "order", "--layer": request.layer, "--model": bool(request.model),
    }  # fmt: skip
    chosen = [name for name, is_given in pages.items() if is_given]
    if len(chosen) > 1:
        raise InputError(f"{chosen[0]} and {chosen[1]} are different pages: give one of them.")
    plain = request.text or (request.vectors and not request.model)
    alone_with = {"--steps": request.steps, "--layer": request.layer, "--quiz": request.quiz, "--model": request.model}
    for name, alone in alone_with.items():
        if alone and (not plain or request.attends_to):
            raise InputError(f"{name} explains self-attention over a text or vectors: give one of these alone.")
        if alone and (request.rules or (request.mask not in (None, CAUSAL) and request.steps != "cost")):
            also = "no --score or --rule" if request.steps == "cost" else "no --mask, --score or --rule"
            raise InputError(f"{name} explains plain causal attention: give {also}.")
    if request.attends_to is not None and (not request.text or request.rules):
        what = (
            "is for texts: give one before it, and no --vectors, --qkv or --roles"
            if not request.text
            else ("has no positions for rules: give no --score or --rule")
        )
        raise InputError(f"--attends-to {what}.")
    if request.embeddings and not request.text:
        raise InputError("--embeddings are for the words of a text: give it with one.")
    if request.roles and request.rules:
        raise InputError("--roles shows a scene with fixed scores: give no --score or --rule.")
    if request.heads and not request.layer:
        raise InputError(f"--heads {request.heads} needs a layer: give --layer too.")
    if request.head and not request.model:
        raise InputError(f"--head {request.head} needs the model: give --model tiny too.")


def model_page(request: ExplainRequest) -> Page:
    """The small language model's page; imported only here, because the import loads the model package."""
    if request.model != "tiny":
        raise InputError(
            f"--model {request.model} is unknown: use tiny; clearhead inspect shows folders of other models."
        )
    head = re.fullmatch(r"(\d{1,9})\.(\d{1,9})", request.head or "0.0")
    if not head:
        raise InputError(f"--head {request.head} is not a head: write LAYER.HEAD, as in 2.1.")
    from clearhead.explain.block import ModelPage

    return ModelPage(read_text(request.text), request.position, int(head[1]), int(head[2]))


def requested_explanation(request: ExplainRequest) -> Explanation:
    """The explanation at the requested position, from whichever input was given."""
    at = request.position
    if request.roles:
        from clearhead.explain.roles import TOKENS

        return scene(inputs.item_position(at, TOKENS), request.mask)
    if request.qkv:
        return inputs.from_qkv(request.qkv, at, mask=request.mask, score=request.rules)
    if request.vectors:
        return inputs.from_file(request.vectors, at, mask=request.mask or CAUSAL, score=request.rules)
    if request.attends_to is not None:
        other = read_text([request.attends_to])
        return inputs.from_two_texts(
            read_text(request.text), other, at, mask=request.mask, embeddings=request.embeddings
        )
    return inputs.from_words(
        request.text, at, mask=request.mask or CAUSAL, score=request.rules, embeddings=request.embeddings
    )


def ask_on_terminal(e: Explanation) -> None:
    """Ask the quiz on standard output, reading answers from standard input until it ends."""

    def read(prompt: str) -> str | None:
        sys.stdout.write(prompt)
        sys.stdout.flush()
        line = sys.stdin.readline()
        return line if line else None

    def say(line: str) -> None:
        indent = " " * (len(line) - len(line.lstrip()))
        print(textwrap.fill(line, width, subsequent_indent=indent, drop_whitespace=True))

    width = min(shutil.get_terminal_size().columns, 100)
    quiz.ask_questions(e, read, say)
