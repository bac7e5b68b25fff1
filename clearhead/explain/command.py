"""The command `clearhead explain`: which page is meant by what was asked, and what cannot be asked together.

Decides how options combine; what the pages hold is decided by them.
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
from clearhead.explain.pages import OfLayer, OfLesson, Page, WhatIf, Worked
from clearhead.explain.roles import scene
from clearhead.explain.steps import Explanation
from clearhead.files.text import read_text
from clearhead.rules.masks import CAUSAL, Mask
from clearhead.rules.scores import Score


@dataclass(frozen=True)
class Asked:
    """What was asked for on the command line."""

    text: tuple[str, ...] = ()
    attends_to: str | None = None
    vectors: Path | None = None
    qkv: Path | None = None
    roles: bool = False
    embeddings: Path | None = None
    position: str = "-1"
    mask: Mask | None = None  # None: what is usual, causal or, for another text, full
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


def page(asked: Asked) -> Page:
    """The page that is meant; raises InputError for what cannot be asked together."""
    check(asked)
    if asked.model:
        return of_model(asked)
    e = explained(asked)
    if asked.layer:
        matrices = read_matrices(asked.weights) if asked.weights else None
        usual = 1 if matrices or e.x.shape[1] % 2 else 2
        return OfLayer(e, asked.heads or usual, matrices)
    if asked.steps and not asked.quiz:
        return OfLesson(e, asked.steps)
    if asked.what_if:
        return WhatIf(e, asked.what_if)
    if asked.quiz:
        return quiz.Quiz(e)
    return Worked(e, asked.matrix, designed=asked.roles)


def check(asked: Asked) -> None:
    """Refuse what makes no sense together, naming both."""
    sources = {
        "a text": bool(asked.text), "--vectors": bool(asked.vectors), "--qkv": bool(asked.qkv), "--roles": asked.roles,
    }  # fmt: skip
    given = [name for name, here in sources.items() if here]
    if len(given) != 1:
        what = f"{' and '.join(given)} are several things" if given else "Nothing"
        raise InputError(f"{what} to explain: give one of a text, --vectors FILE, --qkv FILE and --roles.")
    pages = {
        "--matrix": asked.matrix, "--what-if": bool(asked.what_if), "--steps": bool(asked.steps),
        "--quiz": asked.quiz and asked.steps != "order", "--layer": asked.layer, "--model": bool(asked.model),
    }  # fmt: skip
    wanted = [name for name, here in pages.items() if here]
    if len(wanted) > 1:
        raise InputError(f"{wanted[0]} and {wanted[1]} are different pages: give one of them.")
    plain = asked.text or (asked.vectors and not asked.model)
    alone_with = {"--steps": asked.steps, "--layer": asked.layer, "--quiz": asked.quiz, "--model": asked.model}
    for name, alone in alone_with.items():
        if alone and (not plain or asked.attends_to):
            raise InputError(f"{name} tells of self-attention over a text or vectors: give one of these alone.")
        if alone and (asked.rules or (asked.mask not in (None, CAUSAL) and asked.steps != "cost")):
            also = "no --score or --rule" if asked.steps == "cost" else "no --mask, --score or --rule"
            raise InputError(f"{name} tells of plain causal attention: give {also}.")
    if asked.attends_to is not None and (not asked.text or asked.rules):
        what = (
            "is for texts: give one before it, and no --vectors, --qkv or --roles"
            if not asked.text
            else ("has no positions for rules: give no --score or --rule")
        )
        raise InputError(f"--attends-to {what}.")
    if asked.embeddings and not asked.text:
        raise InputError("--embeddings are for the words of a text: give it with one.")
    if asked.roles and asked.rules:
        raise InputError("--roles is a scene of its own: give no --score or --rule.")
    if asked.heads and not asked.layer:
        raise InputError(f"--heads {asked.heads} needs a layer: give --layer too.")
    if asked.head and not asked.model:
        raise InputError(f"--head {asked.head} is one of the model's: give --model tiny too.")


def of_model(asked: Asked) -> Page:
    """The small language model's page; imported when it is wanted, for it reads the model."""
    if asked.model != "tiny":
        raise InputError(
            f"--model {asked.model} is unknown: use tiny; clearhead inspect shows folders of other models."
        )
    found = re.fullmatch(r"(\d{1,9})\.(\d{1,9})", asked.head or "0.0")
    if not found:
        raise InputError(f"--head {asked.head} is no head: write LAYER.HEAD, as in 2.1.")
    from clearhead.explain.block import OfModel

    return OfModel(read_text(asked.text), asked.position, int(found[1]), int(found[2]))


def explained(asked: Asked) -> Explanation:
    """The numbers at the position."""
    at = asked.position
    if asked.roles:
        from clearhead.explain.roles import TOKENS

        return scene(inputs.place(at, TOKENS), asked.mask)
    if asked.qkv:
        return inputs.from_qkv(asked.qkv, at, mask=asked.mask, score=asked.rules)
    if asked.vectors:
        return inputs.from_file(asked.vectors, at, mask=asked.mask or CAUSAL, score=asked.rules)
    if asked.attends_to is not None:
        other = read_text([asked.attends_to])
        return inputs.across(read_text(asked.text), other, at, mask=asked.mask, embeddings=asked.embeddings)
    return inputs.from_words(asked.text, at, mask=asked.mask or CAUSAL, score=asked.rules, embeddings=asked.embeddings)


def ask(e: Explanation) -> None:
    """Ask the questions on standard output, and read the answers from standard input until it ends."""

    def read(prompt: str) -> str | None:
        sys.stdout.write(prompt)
        sys.stdout.flush()
        line = sys.stdin.readline()
        return line if line else None

    def say(line: str) -> None:
        indent = " " * (len(line) - len(line.lstrip()))
        print(textwrap.fill(line, width, subsequent_indent=indent, drop_whitespace=True))

    width = min(shutil.get_terminal_size().columns, 100)
    quiz.ask(e, read, say)
