"""LaTeX pages need nothing but LaTeX, fit the paper, and leave out nothing without saying so."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.ft2font import FT2Font

from clearhead.explain import explain, latex, layer
from clearhead.explain.blocks import Column, Formula, Heading, Prose, Table
from clearhead.explain.lessons import LESSONS
from clearhead.explain.story import worked_page
from clearhead.explain.tex import escape_latex, text_width
from clearhead.rules.masks import full, window
from clearhead.wording import number

ROOT = Path(__file__).parents[2]
WORDS = ["the", "river", "bank", "was", "wet", "because", "the", "river", "had", "flooded"]
TEXT_WIDTH = 345.0  # of article at 10 points, on letter and A4 paper alike
KERNEL = """
    begin end begingroup endgroup sloppy section subsection textbf fontsize selectfont tabcolsep hline rule framebox
    parbox raggedright raggedleft strut def codepoint fboxsep fbox tiny allowbreak char textbackslash textasciicircum
    textasciitilde ldots S P copyright pounds dag ddag bullet circ pm mu cdot times div surd le ge neq approx infty to
    gets in ss ae AE oe OE o O l L i j u r H v d c b alpha beta gamma delta epsilon zeta eta theta iota kappa lambda nu
    xi pi rho sigma tau upsilon phi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega
    mathrm mbox exp sum Big leftarrow tanh sqrt
"""
COMPUTER_MODERN = FT2Font(f"{matplotlib.get_data_path()}/fonts/ttf/cmr10.ttf")
COMPUTER_MODERN.set_size(8, 72)
SIGN = 9.0  # points: no sign that is not a letter, digit or stop is wider


def sentence(n=10, dim=64, seed=0):
    tokens = [*WORDS, *(WORDS[k % 10] for k in range(10, n))][:n]
    return explain(np.random.default_rng(seed).normal(size=(n, dim)) / 4, tokens)


def rows(written):
    """Every row of every table, as its cells."""
    for table in re.findall(r"\\begin\{tabular\}\{[lr]+\}\n(.*?)\n\\end\{tabular\}", written, re.DOTALL):
        for line in table.splitlines():
            yield re.split(r"(?<!\\) & ", re.sub(r"^(\\hline \\rule\{0pt\}\{8pt\})?\{\}|\\\\$", "", line))


def glyph_width(sign):
    """How many points a sign takes, by the font's own metrics; type for 8 points is cut 6 % wider than for 10."""
    if not (sign.isalnum() or sign in " .,:;()/="):
        return SIGN
    return 1.0626 * COMPUTER_MODERN.load_char(ord(sign)).linearHoriAdvance / 65536


def printed_width(cell):
    """How many points a cell takes, or a little more."""
    if box := re.match(r"\s*\\(?:parbox\[t\]|framebox)\W([\d.]+)pt|\s*\\rule\{([\d.]+)pt", cell):
        return float(box[1] or box[2])
    signs = re.sub(r"\\[a-zA-Z]+(?:\{\})?", "~", re.sub(r"[${}_^]", "", cell))
    return sum(map(glyph_width, signs.strip()))


PAGES = {
    **{f"{n} items": lambda n=n: worked_page(sentence(n), matrix=True) for n in (1, 2, 10, 13, 20, 40, 41, 100, 400)},
    "full": lambda: worked_page(explain(sentence(30).x, mask=full()), matrix=True),
    "window": lambda: worked_page(explain(sentence(30).x, mask=window(2)), matrix=True),
    "64 heads": lambda: layer.layer_page(layer.work_out_layer(sentence(20), 64)),
    **{name: lambda name=name: LESSONS[name](sentence()).page for name in LESSONS},
}


@pytest.mark.parametrize("name", PAGES)
def test_no_row_of_a_table_is_wider_than_the_text(name):
    written = latex.render(PAGES[name]())
    widths = [sum(printed_width(cell) + 6 for cell in cells) for cells in rows(written)]
    assert len(widths) == written.count(r" \\" + "\n")
    assert 100 < max(widths) <= TEXT_WIDTH + 5


@pytest.mark.parametrize("name", PAGES)
def test_no_table_is_longer_than_a_page(name):
    written = latex.render(PAGES[name]())
    tables = re.findall(r"\\begin\{tabular\}.*?\\end\{tabular\}", written, re.DOTALL)
    assert tables
    assert max(table.count("\n") for table in tables) < 50  # lines of 9.5 points on 550


@pytest.mark.parametrize("name", PAGES)
def test_every_negative_number_has_a_minus(name):
    written = latex.render(PAGES[name]())
    text = re.sub(r"\\\[.*?\\\]|\\begin\{tabular\}\{[lr]+\}", "", written)
    assert not re.search(r"(?<![\w$])-\.?\d|\de-\d", text)
    if "items" in name:
        assert "$-$0." in written


@pytest.mark.parametrize("n", [1, 2, 10, 13, 20, 39, 40])
def test_parts_of_a_matrix_hold_every_weight(n):
    e = sentence(n)
    written = latex.render(worked_page(e, matrix=True)).split("subsection*{All rows}")[1]
    found, columns = {}, []
    for cells in rows(written):
        cells = [cell.strip() for cell in cells]
        if cells[0] == "i":
            columns = [*map(int, cells[2:])]
            continue
        for j, cell in zip(columns, cells[2:], strict=True):
            assert (int(cells[0]), j) not in found
            found[int(cells[0]), j] = cell
    for i in range(n):
        for j in range(i + 1):
            assert found[i, j] == escape_latex(number(e.square.weights[i, j]))
    assert {found[at] for at in found if at[1] > at[0]} <= {r"$\cdot$"}
    assert ("In parts" in written) == (n > 10)


def test_a_matrix_too_large_to_print_says_what_is_left_out():
    written = latex.render(worked_page(sentence(400), matrix=True)).split("subsection*{All rows}")[1]
    assert "rows 360 to 399 of 400 and columns 360 to 399 of 400: -{}-format json gives all." in written
    indices = {int(cells[0]) for cells in rows(written) if cells[0] != "i"}
    assert indices == set(range(360, 400))


def test_parts_of_a_table_hold_every_cell():
    columns = (Column("j"), Column("item", "left"), *(Column(f"c{k}") for k in range(30)), Column("", "bar"))
    cells = tuple((f"{j}", f"n{j}", *(f"{j}.{k:03}" for k in range(30)), 0.5) for j in range(120))
    total = ("", "sum", *(f"t{k}" for k in range(30)), "")
    written = latex.render([Table(columns, cells, total)])
    assert written.count(r"\hline") == 2 * written.count("sum") + written.count(r"\begin{tabular}") - written.count(
        "sum"
    )
    for row in (*cells, total):
        for cell in row[2:-1]:
            assert len(re.findall(rf"(?<![\w.]){re.escape(cell)}(?![\w.])", written)) == 1
    for k in range(30):
        assert len(re.findall(rf" c{k} ", written)) == 3  # pages of at most 45 lines


def test_bars_give_way_before_words_and_words_before_parts():
    short, long = (("0", "the", "0.1234", 1.0),), (("0", "of which " * 8, "0.1234", 1.0),)
    columns = (Column("j"), Column("item", "left"), Column("score"), Column("", "bar"))
    assert r"\rule{114.0pt}" in latex.render([Table(columns, short)])
    assert r"\parbox" not in latex.render([Table(columns, short)])
    middle = latex.render([Table(columns, long)])
    assert r"\rule{" not in middle.replace(r"\rule{0pt}{8pt}", "")
    assert r"\parbox" not in middle
    wrapped = latex.render([Table(columns, (("0", "of which " * 14, "0.1234", 1.0),))])
    assert r"\parbox[t]{" in wrapped
    assert wrapped.count(r"\begin{tabular}") == 1


def test_negative_bars_are_hollow():
    columns = (Column("j"), Column("", "bar"))
    written = latex.render([Table(columns, (("0", -0.5), ("1", 0.5), ("2", 0.0)))])
    assert written.count(r"\framebox[57.0pt]") == 1
    assert written.count(r"\rule{57.0pt}{1.2ex}") == 1


# characters


def test_text_is_escaped():
    assert escape_latex("50%_{a}$&#~^\\") == (r"50\%\_\{a\}\$\&\#\textasciitilde{}\textasciicircum{}\textbackslash{}")
    body = latex.render(worked_page(explain([[1.0]], ["50%_a&b"]), matrix=True)).split("\n", 1)[1]
    assert r"50\%\_a\&b" in body
    assert not re.search(r"(?<!\\)%", body)


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("é", r"\'{e}"), ("e\u0301", r"\'{e}"), ("ï", r'\"{\i}'), ("Łódź", r"\L{}\'{o}d\'{z}"), ("ç", r"\c{c}"),
        ("naïve", r'na\"{\i}ve'), ("Å", r"\r{A}"), ("ő", r"\H{o}"), ("ị", r"\d{i}"), ("αβ", r"$\alpha$$\beta$"),
        ("河", r"\codepoint{6CB3}"), ("河岸", r"\codepoint{6CB3}\allowbreak{}\codepoint{5CB8}"),
        ("😀", r"\codepoint{1F600}"), ("ế", r"\codepoint{1EBF}"), ("д", r"\codepoint{0434}"),
        ("\n", r"\codepoint{000A}"),
        ("\ufffd", r"\codepoint{FFFD}"), ("x₁₂", "x$_{12}$"), ("−1", "$-$1"), ("-1", "$-$1"), ("(-.5)", "($-$.5)"),
        ("1e-05", "1e$-$05"), ("covid-19", "covid-19"), ("-", "-"), ("--", "-{}-"), ("---", "-{}-{}-"),
        ("''", "'{}'"), ("“'", "``{}'"), ("?‘", "?{}`"), ("`", r"\`{}"), ("--format json", "-{}-format json"),
    ],
)  # fmt: skip
def test_characters_are_spelled_or_shown_as_their_code_points(text, spelled):
    assert escape_latex(text) == spelled


def test_only_what_needs_the_box_defines_it():
    assert r"\def\codepoint" in latex.render(worked_page(explain([[1.0]], ["河"])))
    assert "codepoint" not in latex.render(worked_page(explain([[1.0]], ["é"])))


def test_long_words_may_break():
    spelled = escape_latex("x" * 300)
    assert spelled.replace(r"\allowbreak{}", "") == "x" * 300
    assert max(map(len, spelled.split(r"\allowbreak{}"))) <= 4
    assert escape_latex("incomprehensibilities") == "incomprehensibilities"


@pytest.mark.parametrize(
    "text", ["flooded (itself)", "0.1234", "-0.1234", "1.2e-05", "WIDEST IS MOST", "because", "i, l; (j)"]
)
def test_estimated_widths_are_those_of_the_font(text):
    exact = sum(map(glyph_width, text.replace("-", "")))
    minus = 6.61 * text.count("-")  # in the font of signs
    assert (
        exact + minus - 0.5 <= text_width(text) <= exact + minus + 0.1 * len(text) + 3 * len(re.findall("[- ]", text))
    )


@given(st.text(st.characters(codec="utf-8"), max_size=12))
def test_any_text_is_ascii_of_the_kernel(text):
    spelled = escape_latex(text)
    assert spelled.isascii()
    assert spelled.isprintable()
    assert set(re.findall(r"\\([a-zA-Z]+)", spelled)) <= {*KERNEL.split()}
    assert spelled.replace(r"\{", "").count("{") == spelled.replace(r"\}", "").count("}")
    assert spelled.replace(r"\$", "").count("$") % 2 == 0
    assert not re.search(r"(?<!\\)[%#&]", spelled)
    assert text_width(text) >= 2 * len(re.sub(r"[\u0300-\u036f]", "", text))


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=6), min_size=1, max_size=4))
def test_no_token_can_break_a_table(tokens):
    e = explain(np.eye(len(tokens)), tokens)
    written = latex.render(worked_page(e, matrix=True))
    for cells in rows(written):
        assert len(cells) > 1
    heads = [row for row in rows(written) if row[0].strip() in ("i", "j")]
    assert len(heads) == 4


# the file


@pytest.mark.parametrize("name", PAGES)
def test_the_first_comment_is_true(name):
    """ASCII, no package, and no command that LaTeX itself has not."""
    written = latex.render(PAGES[name]())
    comment, body = written.split("\n", 1)
    assert comment.startswith("% ")
    assert "no packages" in comment
    assert written.isascii()
    assert "usepackage" not in body
    assert set(re.findall(r"\\([a-zA-Z]+)", body)) <= {*KERNEL.split()}
    assert body.count(r"\begingroup") == body.count(r"\endgroup") == 1


def test_a_long_formula_may_break():
    short, long = Formula("", "a = b"), Formula("", " + ".join(f"x_{{{n}}}" for n in range(60)))
    assert "\\[ a = b \\]" in latex.render([Heading("one", short)])
    assert "\\[" not in latex.render([Heading("two", long)])
    assert latex.render([Prose("a", strong=True)]).count(r"\textbf{a}") == 1


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex; the widths above are checked without it")
def test_hard_pages_compile_and_fit():
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "latex", "--only", "article"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pages in 1 documents: 0 errors" in done.stdout
