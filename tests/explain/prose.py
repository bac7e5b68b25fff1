"""A judge of prose: reads what clearhead explain prints and holds every claim to numbers of its own.

    judge(case)     raises UntrueError, which quotes the sentence or the cell and says what is true

Numbers come from the input vectors by numpy alone (judge/truth.py, judge/rules.py). A sentence, a table or a heading
that no pattern knows is untrue, so that nothing new goes unchecked. Where what is judged is:

    judge/ranges.py     what a printed number says
    judge/reading.py    pages read back
    judge/sentences.py  templates of sentences
    judge/worked.py     the worked steps, judge/zero.py what they say of dot products of 0
    judge/tables.py     their tables, judge/headings.py their headings and formulas
    judge/pages.py      what must be said of an input
    judge/texts.py      what is said of a text's items
    judge/programs.py   JSON
    judge/tex_page.py   the same page in LaTeX, judge/terminal.py on a terminal
    judge/lessons.py    --steps order, shapes and cost
    judge/layer.py      --layer
    judge/what_if.py    --what-if, judge/altered.py its formulas
    judge/positions.py  --steps positions, judge/quizzes.py --quiz
    judge/model.py      --model tiny, judge/network.py the model worked out by numpy alone
"""

import contextlib
import functools
import io
from collections.abc import Callable

from rich.console import Console

from clearhead.errors import InputError
from clearhead.explain import Explanation, formats
from clearhead.explain import markdown as as_markdown
from clearhead.explain import text as rich_text
from clearhead.explain.pages import LayerPage, LessonPage, WhatIfPage, WorkedPage
from clearhead.explain.pages import Page as Asked
from clearhead.explain.quiz import QuizPage
from tests.explain.cases import Case, of_model
from tests.explain.judge import (
    headings,
    layer,
    lessons,
    model,
    pages,
    positions,
    programs,
    quizzes,
    terminal,
    tex_page,
    texts,
    what_if,
    worked,
)
from tests.explain.judge.evidence import Judge
from tests.explain.judge.ranges import UntrueError
from tests.explain.judge.reading import Page, page_of
from tests.explain.judge.truth import Truth

LESSONS = ("order", "shapes", "cost", "positions")
DIMS = 6  # of a vector, where there is room
WIDE = 2000  # columns, on which nothing is wrapped


def judge(case: Case) -> set[str]:
    """Check a page of a case in every format, and give the templates of the sentences that it has."""
    bench = made(case)
    try:
        explained = case.explained()
        markdown, latex, numbers = (in_format(case, explained, form) for form in ("markdown", "latex", "json"))
    except InputError as error:
        refused(bench, case, str(error))
        return set()
    bench.json = programs.loads(numbers)
    if case.page == "model":
        bench = model.bench_of(case, bench.json)
    elif case.text is not None:
        bench.origins = programs.loads(WorkedPage(explained).json())["origins"]
        texts.check_origins(bench)
    page = page_of(markdown)
    PAGES[case.page](bench, page)
    tex_page.check_latex(bench, page, latex)
    if case.seed % 2:
        terminal.check_wide(bench, page, on_terminal(case, explained, WIDE, DIMS), plain_formulas(case, bench))
    elif case.seed % 4:
        narrow(case, explained, bench)
    return bench.met


def narrow(case: Case, explained: Explanation, bench: Judge) -> None:
    """The page on a terminal of 40 to 100 columns, which may show fewer dims."""
    width = 40 + case.seed // 4 % 61
    dims = rich_text.dims_that_fit(width, explained.tokens)
    again, page = made(case), page_of(as_markdown.render(asked(case, explained).blocks(dims)))
    if case.page == "model":
        again = model.bench_of(case, bench.kept["model"])
    again.json, again.origins, again.sources = bench.json, bench.origins, bench.sources
    PAGES[case.page](again, page)
    bench.met |= again.met
    terminal.check_narrow(again, page, on_terminal(case, explained, width, dims), width)


def on_terminal(case: Case, explained: Explanation, width: int, dims: int) -> str:
    """What a terminal of so many columns shows."""
    written = io.StringIO()
    console = Console(file=written, width=width, color_system=None)
    rich_text.print_page(asked(case, explained).blocks(dims), console)
    return written.getvalue()


def plain_formulas(case: Case, bench: Judge) -> list[str]:
    """The formulas under headings as a terminal spells them."""
    if case.page in ("order", "shapes", "cost", "quiz"):
        return []
    known = {
        "layer": lambda: headings.layer(bench), "what if": lambda: what_if.headings(case.what),
        "positions": lambda: positions.HEADINGS[: 3 if bench.truth.i > 1 else 1],
        "model": lambda: model.headings(bench),
    }  # fmt: skip
    return [plain for _, plain, _ in known.get(case.page, lambda: headings.worked(bench))() if plain]


def made(case: Case) -> Judge:
    """The judge of a case, who knows its input alone."""
    words = None
    if case.text is not None and case.page != "model":
        words = texts.from_file(case.embeddings) if case.embeddings else texts.shipped()
    bench = Judge(
        case.x, case.tokens, case.position, case.mask, case.rules,
        vocabulary=words, text=case.text, embeddings=case.embeddings,
        keys=case.keys, values=case.values, scale=case.scale,
    )  # fmt: skip
    bench.matrix, bench.heads, bench.what = case.page == "matrix", case.heads, case.what
    return bench


def check_worked(bench: Judge, page: Page) -> None:
    """The worked steps, and JSON."""
    programs.check_json(bench)
    if bench.text is not None:
        bench.holds(bench.json["origins"] == bench.origins, "origins")
        bench.vocabulary.check_nearest(bench)
        notes = [block.text for block in page.sections[0].blocks[:-1]]
        bench.holds([note for note in notes if note[0] != "≈"] == [f"{note}." for note in bench.json["notes"]], "notes")
    pages.check_page(bench, page)


SENTENCES = [
    *worked.WORKED,
    *texts.NOTES,
    *layer.SENTENCES,
    *(one for known in (*lessons.SENTENCES.values(), *what_if.SENTENCES.values()) for one in known),
    *positions.SENTENCES,
    *quizzes.QUESTIONS,
    *quizzes.ANSWERS,
    *model.SENTENCES,
]
PAGES: dict[str, Callable[[Judge, Page], None]] = {
    "worked": check_worked,
    "matrix": check_worked,
    "layer": layer.check_layer,
    "what if": what_if.check_what_if,
    "quiz": quizzes.check_quiz,
    "model": model.check_model,
    **{
        name: functools.partial(lambda name, bench, page: lessons.check_lesson(bench, name, page), name)
        for name in lessons.TITLES
    },
    "positions": positions.check_positions,
}


def asked(case: Case, explained: Explanation) -> Asked:
    """The page that is asked for."""
    if case.page in LESSONS:
        return LessonPage(explained, case.page)
    if case.page == "layer":
        return LayerPage(explained, case.heads)
    if case.page == "what if":
        return WhatIfPage(explained, case.what)
    if case.page == "quiz":
        return QuizPage(explained)
    if case.page == "model":
        return of_model(case.text, case.given, *case.head)
    return WorkedPage(explained, case.page == "matrix")


def in_format(case: Case, explained: Explanation, form: str) -> str:
    """What is written to standard output."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        formats.write_page(asked(case, explained), form)
    return out.getvalue()


def refused(bench: Judge, case: Case, message: str) -> None:
    """An input that is not explained is one that cannot be: a score that is seen exceeds a float64."""
    if case.page == "model":
        model.refused(case, message)
        return
    if case.page == "what if":
        what_if.refused(bench, case.what, message)
        return
    rows = bench.all_rows if bench.matrix else [bench.truth, Truth(bench.truth.x, 0, ("full",))]
    if not any(row.too_large for row in rows):
        raise UntrueError(f"refused for no reason: {message}")
