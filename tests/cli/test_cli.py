"""The command ends as it should: results on standard output, one line for an error, no traceback ever."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from clearhead.cli import main
from clearhead.definition import textbook

SENTENCE = "the river bank was wet because the river had flooded"
ROOT = Path(__file__).parents[2]
ESCAPE = "\x1b"


@pytest.fixture
def vectors(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("word,a,b\nthe,1,0\nriver,0,2\nflooded,0.5,1.5\n")
    return path


def command(*arguments: str, environment=None, **options) -> subprocess.CompletedProcess:
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
    line = [sys.executable, "-m", "clearhead", *arguments]
    return subprocess.run(line, capture_output=True, timeout=60, env=variables, check=False, **options)


def refused(capsys, *arguments) -> str:
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("clearhead: ")
    assert captured.err.count("\n") == 1
    return captured.err


# results


def test_json_of_a_sentence_is_the_definition_of_its_word_vectors(capsys):
    from clearhead.words import load

    assert main(["explain", SENTENCE, "--format", "json"]) == 0
    read = json.loads(capsys.readouterr().out)
    x = load().embed(SENTENCE).x
    assert read["tokens"] == SENTENCE.split()
    assert read["position"] == 9
    assert read["output"] == textbook.self_attention(x)[9].tolist()
    assert read["scores"] == textbook.scores(x, x)[9].tolist()
    assert read["before"][0]["cosine"] >= read["before"][1]["cosine"]
    assert read["after"]


def test_words_may_be_given_unquoted_or_on_standard_input(capsys):
    assert main(["explain", *SENTENCE.split()]) == 0
    unquoted = capsys.readouterr().out
    piped = command("explain", "-", input=SENTENCE.encode())
    assert piped.returncode == 0
    assert piped.stdout.decode() == unquoted


@pytest.mark.parametrize(("position", "index"), [("0", 0), ("-1", 2), ("-3", 0), ("river", 1)])
def test_positions(capsys, vectors, position, index):
    assert main(["explain", "--vectors", str(vectors), "--position", position, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["position"] == index


@pytest.mark.parametrize("form", ["text", "markdown", "latex", "json"])
@pytest.mark.parametrize("more", [[], ["--matrix"], ["--steps", "order"], ["--steps", "shapes"], ["--steps", "cost"]])
def test_every_page_in_every_format_names_every_token(capsys, vectors, form, more):
    assert main(["explain", "--vectors", str(vectors), "--format", form, *more]) == 0
    captured = capsys.readouterr()
    assert all(token in captured.out for token in ("the", "river", "flooded"))
    assert captured.err == ""


def test_npy_vectors_are_explained(capsys, tmp_path):
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    assert main(["explain", "--vectors", str(tmp_path / "x.npy"), "--format", "json"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert read["tokens"] == ["x0", "x1", "x2", "x3"]
    assert read["output"] == textbook.self_attention(x.astype(np.float64))[3].tolist()


def test_help_and_version(capsys):
    for arguments in ([], ["--help"], ["-h"], ["explain", "--help"]):
        assert main(arguments) == 0
        captured = capsys.readouterr()
        assert "explain" in captured.out
        assert captured.err == ""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("clearhead")


def test_help_leaves_what_explaining_needs_unread():
    code = "import sys; from clearhead.cli import main; main(['--help']); print(*sorted(sys.modules), sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "clearhead.cli.command" in done.stdout
    assert "clearhead.explain" not in done.stdout
    assert "clearhead.words" not in done.stdout


# colours and encodings


def test_what_is_piped_has_no_colours_and_a_terminal_has(vectors):
    arguments = ("explain", "--vectors", str(vectors), "--matrix")
    piped = command(*arguments).stdout.decode()
    assert ESCAPE not in piped
    coloured = command(*arguments, environment={"FORCE_COLOR": "1", "TERM": "xterm"}).stdout.decode()
    assert ESCAPE in coloured
    plain = command(*arguments, environment={"FORCE_COLOR": "1", "TERM": "xterm", "NO_COLOR": "1"}).stdout.decode()
    assert ESCAPE not in plain
    assert [line.rstrip() for line in re.sub(r"\x1b\[[\d;]*m", "", coloured).splitlines()] == plain.splitlines()


def test_a_pipe_gets_utf8_whatever_the_locale_says(vectors):
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    done = command("explain", "--vectors", str(vectors), environment=ascii_only)
    assert done.returncode == 0
    assert "α₂ⱼ" in done.stdout.decode("utf-8")


# errors


def test_a_text_that_begins_with_a_minus_stands_behind_two(capsys):
    assert main(["explain", "--", "-5 degrees"]) == 0
    assert "degrees" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["explain", "generate"])
def test_an_empty_file_is_named(capsys, tmp_path, command):
    (tmp_path / "empty.txt").write_text(" \n")
    assert "empty.txt holds no text" in refused(capsys, command, tmp_path / "empty.txt")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["explain"], "Nothing to explain"),
        (["explain", ""], "no word"),
        (["explain", "?!"], "no word"),
        (["explain", "-5 degrees"], "goes after --, as in clearhead explain -- '-5 degrees'"),
        (["explain", "letter.txt"], "letter.txt does not exist"),
        (["explain", "x.npy"], "--vectors x.npy"),
        (["explain", SENTENCE, "--embeddings", "glove.txt"], "glove.txt is not there"),
        (["explain", "--vectors", "x.csv", "--embeddings", "glove.txt"], "--embeddings are for the words of a text"),
        (["explain", SENTENCE, "--position", "10"], "Position 10 is outside the 10 items"),
        (["explain", SENTENCE, "--position", "-11"], "Position -11"),
        (["explain", SENTENCE, "--position", "lake"], "'lake'"),
        (["explain", SENTENCE, "--position", "--5"], "'--5'"),
        (["explain", SENTENCE, "--format", "pdf"], "pdf"),
        (["explain", SENTENCE, "--steps", "none"], "none"),
        (["explain", SENTENCE, "--steps", "cost", "--matrix"], "--matrix"),
        (["explain", SENTENCE, "--vectors", "x.csv"], "--vectors"),
        (["explain", "--vectors", "missing.csv"], "missing.csv"),
        (["explain", "--vectors", "x.txt"], "x.txt"),
        (["explain", "--vectors"], "--vectors"),
        (["explain", "--wrong"], "--wrong"),
        (["wrong"], "wrong"),
    ],
)
def test_wrong_input_is_answered_by_one_line(capsys, arguments, said):
    assert said in refused(capsys, *arguments)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("1,2\n3\n", "line 2"),
        ("1,2\n3,nan\n", "line 2"),
        ("1,2\n3,x\n", "line 2"),
        ("", "no vectors"),
        ("1e200,1\n", "scale"),
    ],
)
def test_wrong_files_are_answered_by_one_line_that_names_them(capsys, tmp_path, content, said):
    path = tmp_path / "broken.csv"
    path.write_text(content)
    error = refused(capsys, "explain", "--vectors", path)
    assert said in error
    assert str(path) in error


def test_standard_input_that_is_no_text_is_refused():
    done = command("explain", "-", input=b"caf\xe9")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode().startswith("clearhead: Standard input is not UTF-8")


def test_errors_have_no_traceback_and_leave_python_by_code_2():
    done = command("explain", SENTENCE, "--position", "99")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode().splitlines() == [
        "clearhead: Position 99 is outside the 10 items: give 0 to 9, or -1 to -10 from the end."
    ]


# endings


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_reader_that_stops_early_is_no_error(tmp_path, form):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(300, 40)))
    run = subprocess.Popen(
        [sys.executable, "-m", "clearhead", "explain", "--vectors", "x.npy", "--format", form],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    run.stdout.close()
    assert run.stderr.read() == b""
    assert run.wait(60) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_answered_by_one_line(vectors):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "clearhead", "explain", "--vectors", vectors, "--format", "json"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            check=False,
        )
    assert done.returncode == 2
    assert re.fullmatch(r"clearhead: .*No space left.*\n", done.stderr)


def wait_for_reading(pid: int) -> None:
    """Wait until a process reads its standard input; where the system does not tell, for as long as starting takes."""
    call, end = Path(f"/proc/{pid}/syscall"), time.monotonic() + 60
    if not call.exists():
        time.sleep(5)
        return
    while call.read_text().split()[:2] not in (["0", "0x0"], ["63", "0x0"]):  # read(0, …), on x86-64 and AArch64
        assert time.monotonic() < end
        time.sleep(0.05)


def test_an_interrupt_ends_quietly_with_130():
    run = subprocess.Popen(
        [sys.executable, "-m", "clearhead", "explain", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    wait_for_reading(run.pid)
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert (run.returncode, out, err) == (130, b"", b"")


# rules


def test_explain_takes_the_rules_of_run(capsys, tmp_path):
    from clearhead import softcap, window
    from clearhead.words import load

    (tmp_path / "rules.py").write_text(
        "def near(score, batch, head, query, key):\n    return score - abs(query - key)\n"
    )
    words = ["--mask", "window:3", "--score", "softcap:2", "--rule", f"{tmp_path}/rules.py:near"]
    assert main(["explain", SENTENCE, *words, "--format", "json"]) == 0
    read = json.loads(capsys.readouterr().out)
    x = load().embed(SENTENCE).x
    rules = [softcap(2), lambda score, batch, head, query, key: score - abs(query - key)]
    expected = textbook.attention(x, x, x, mask=window(3), score=rules, scale=1.0)
    np.testing.assert_allclose(read["output"], expected[9], rtol=1e-14)
    assert (read["mask"], read["seen"]) == ("window:3", [6, 7, 8, 9])
    assert [rule["rule"] for rule in read["rules"]] == ["softcap:2", "near"]


@pytest.mark.parametrize("mask", ["full", "causal", "prefix:3 | causal", "documents:4,6", "~window:2", "dilated:2"])
@pytest.mark.parametrize("score", [[], ["alibi"], ["scale:0.5", "softcap:30"]])
@pytest.mark.parametrize("form", ["text", "markdown", "latex"])
def test_every_rule_in_every_format(capsys, mask, score, form):
    words = [word for rule in score for word in ("--score", rule)]
    assert main(["explain", SENTENCE, "--mask", mask, *words, "--format", form, "--matrix"]) == 0
    told = capsys.readouterr().out
    assert all(token in told for token in SENTENCE.split())
    assert ("Mask" in told) == (mask != "causal")
    assert told.count("becomes") == len(score)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--mask", "window"], "window:255"),
        (["--mask", "diagonal"], "is not a mask"),
        (["--mask", "documents:3,3"], "make the lengths sum up"),
        (["--score", "softcap"], "softcap:30"),
        (["--score", "softcap:0"], "above 0"),
        (["--score", "cosine"], "not a score rule"),
        (["--rule", "nowhere.py:f"], "not there"),
        (["--rule", "f"], "file.py:function"),
        (["--mask", "full", "--steps", "order"], "--steps"),
        (["--score", "alibi", "--steps", "cost"], "no --score or --rule"),
    ],
)
def test_wrong_rules_are_answered_by_one_line(capsys, words, said):
    assert said in refused(capsys, "explain", SENTENCE, *words)


def test_a_rule_that_cannot_be_traced_names_its_line(capsys, tmp_path):
    path = tmp_path / "rules.py"
    path.write_text("def f(score, batch, head, query, key):\n    return score if score > 0 else -score\n")
    said = refused(capsys, "explain", SENTENCE, "--rule", f"{path}:f")
    assert f"{path}, line 2" in said


@pytest.mark.parametrize("form", ["text", "markdown", "latex", "json"])
def test_explain_tells_of_a_layer(capsys, form):
    assert main(["explain", SENTENCE, "--layer", "--heads", "4", "--format", form]) == 0
    told = capsys.readouterr().out
    assert ("W^O" in told) == (form != "json")
    assert "--mask" in refused(capsys, "explain", SENTENCE, "--layer", "--mask", "full")
    assert "--heads 5" in refused(capsys, "explain", SENTENCE, "--layer", "--heads", "5")
    assert "give --layer too" in refused(capsys, "explain", SENTENCE, "--heads", "2")


def test_run_has_no_options_of_explain(capsys, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((3, 2), np.float32))
    for words in (["--layer"], ["--heads", "4"]):
        assert "No such option" in refused(capsys, "run", tmp_path / "x.npy", "-o", tmp_path / "y.npy", *words)


# any text


def test_a_text_comes_from_words_a_file_or_standard_input_alike(capsys, tmp_path):
    outcomes = []
    for name, held in (("a.txt", SENTENCE.encode()), ("b.txt", b"\xef\xbb\xbf" + SENTENCE.encode())):
        (tmp_path / name).write_bytes(held)
        assert main(["explain", str(tmp_path / name)]) == 0
        outcomes.append(capsys.readouterr().out)
    (tmp_path / "c.txt").write_bytes(SENTENCE.encode("utf-16"))
    assert main(["explain", str(tmp_path / "c.txt")]) == 0
    outcomes.append(capsys.readouterr().out)
    assert main(["explain", SENTENCE]) == 0
    assert set(outcomes) == {capsys.readouterr().out}


def test_every_locale_reads_the_same_text():
    text = "the 河 café 😀"
    poor = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    rich = command("explain", text, "--position", "café", environment={"LC_ALL": "C.UTF-8"})
    plain = command("explain", text, "--position", "café", environment=poor)
    assert (rich.returncode, plain.returncode) == (0, 0)
    assert rich.stdout == plain.stdout
    assert "≈河" in plain.stdout.decode()


def test_a_book_is_explained(capsys):
    book = ROOT / "examples" / "moby_dick.txt"
    assert main(["explain", str(book), "--position", "whale", "--mask", "window:500", "--format", "json"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert len(read["tokens"]) > 40_000
    assert len(read["seen"]) == 501
    assert sum(x for x in read["weights"] if x) == pytest.approx(1)
    assert main(["explain", str(book)]) == 0
    assert len(capsys.readouterr().out.splitlines()) < 220


def test_embeddings_of_others_are_taken(capsys, tmp_path):
    (tmp_path / "glove.txt").write_text("the 0.1 0 0\nriver 1 2 0\nflooded 1 1.5 0.5\n")
    assert main(["explain", "the river flooded zzqxv", "--embeddings", str(tmp_path / "glove.txt")]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "Vectors: glove.txt, 3 words × 3" in told
    assert "an item that carries no meaning: “zzqxv”" in told


def test_nothing_is_dropped_without_a_word(capsys):
    assert main(["explain", "C++ costs 50% of $100 😀", "--format", "json"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert read["tokens"] == ["c", "costs", "50", "of", "100", "😀"]
    assert any("Left out" in note and all(c in note for c in "+%$") for note in read["notes"])
    assert {item["token"]: item["how"] for item in read["origins"]} == {
        "50": "number", "100": "number", "😀": "nothing",
    }  # fmt: skip


def test_a_number_in_the_text_may_be_the_position(capsys):
    for position, index in (("1984", 1), ("0", 0), ("-1", 2), ("Orwell!", 2)):
        assert main(["explain", "in 1984 Orwell", "--position", position, "--format", "json"]) == 0
        assert json.loads(capsys.readouterr().out)["position"] == index


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["view", "--port", "x"], "x cannot be used for '--port': give a whole number. Try 'clearhead view --help'."),
        (["view", "--port", "0"], "0 cannot be used for '--port': give 1 or more."),
        (["view", "--port", "99999"], "99999 cannot be used for '--port': give 65535 or less."),
        (["generate", "a", "--temperature", "hot"], "hot cannot be used for '--temperature': give a number."),
        (["explain", "a", "--format", "pdf"], "'--format': 'pdf' is not one of 'text', 'markdown', "),
        (["view", "--nope"], "No such option: --nope"),
        (["view", ""], "The text is empty: give a sentence"),
        (["view", "word " * 500], "The text has 2500 characters, and the page for learning takes 2000"),
        (["explian"], "No such command 'explian'. Did you mean 'explain'? Try 'clearhead --help'."),
        (
            ["inspect", "tiny", "a cat"],
            "tiny is not for inspect: use explain TEXT --model tiny, or view --model tiny TEXT.",
        ),
    ],
)
def test_wrong_arguments_are_named_in_our_words(arguments, told, capsys):
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"clearhead: {told}")
    assert "Input should" not in said
    assert "Value error" not in said


def test_no_error_commands_the_terminal(capsys):
    assert "gone\\x1b]0;title\\x07.npy cannot be read" in refused(
        capsys, "run", "gone\x1b]0;title\x07.npy", "-o", "y.npy"
    )


SLOW_IMPORT = """
import sys, time
sys.argv[0] = "clearhead"

class Slow:
    def find_spec(self, name, path, target=None):
        if name == {name!r}:
            print("begun", flush=True)
            time.sleep(30)

sys.meta_path.insert(0, Slow())
from clearhead.cli import main
sys.exit(main(["doctor"]))
"""


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize("name", ["numpy", "clearhead.cli.command"])
def test_ctrl_c_while_the_command_is_imported_leaves_no_traceback(name):
    command = [sys.executable, "-c", SLOW_IMPORT.format(name=name)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout.readline() == "begun\n"
        running.send_signal(signal.SIGINT)
        assert running.communicate()[1] == ""
        assert running.returncode in (-signal.SIGINT, 130)


def test_only_the_command_changes_what_ctrl_c_does():
    code = "import signal, clearhead; assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
