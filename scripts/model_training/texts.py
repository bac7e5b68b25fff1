"""Which parts of the four sources the model reads, and in what form: plain ASCII, a paragraph a line.

The style of a small model is the style of its text. So the addresses begin where presidents spoke them aloud, and leave
out passages with sums and dates; of the Bible the books are read that tell a story or give advice, no law and no lists.
"""

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from model_training.formats import r_string_vectors, sword_books
from model_training.sources import Sources

OLD = [1, 7, 8, 9, 10, 11, 12, *range(18, 25), 59, 60, *range(63, 68), 73, 78, 88, 89]  # Genesis, Judges … Maccabees
NEW = [1, 2, 3, 4, 5]  # the Gospels and Acts
FIRST_SPOKEN, LONGEST_SPOKEN, SENTENCES = 1913, 60_000, 5
DRY = re.compile(r"[\d$%]|fiscal|budget|appropriat|deficit|\btax|per ?cent|million|billion|program", re.IGNORECASE)
HEADING = re.compile(r"(?i:chapter|volume) [IVXLC\d]+\.?( .{0,80})?|[^a-z]*|(The End|Finis)\.?")
PLAIN = {"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "--", "…": "...", "æ": "ae", "œ": "oe", "Æ": "Ae"}
CHUNK, EVERY, AT = 8000, 40, 20  # characters of a chunk; of each 40 chunks one is held out


def texts(sources: Sources) -> dict[str, list[str]]:
    """Each source's paragraphs."""
    read = {
        "austen": _austen(sources.austen),
        "moby_dick": _moby_dick(sources.moby_dick),
        "bible": _bible(sources.bible),
        "addresses": _addresses(sources.addresses),
    }
    return {name: [p for p in map(_plain, paragraphs) if not _is_heading(p)] for name, paragraphs in read.items()}


def chunks(paragraphs: list[str]) -> Iterator[str]:
    """Runs of paragraphs, each of some 8000 characters."""
    run, size = list[str](), 0
    for paragraph in paragraphs:
        run.append(paragraph)
        size += len(paragraph)
        if size >= CHUNK:
            yield "\n".join(run) + "\n"
            run, size = [], 0
    yield "\n".join(run) + "\n"


def split(sources: dict[str, list[str]]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """What is trained on, a text for each source, and the chunks that are held out."""
    trained, held = {}, {}
    for name, paragraphs in sources.items():
        parts = list(chunks(paragraphs))
        held[name] = parts[AT::EVERY]
        trained[name] = "".join(part for i, part in enumerate(parts) if i % EVERY != AT)
    return trained, held


def _austen(path: Path) -> Iterator[str]:
    for lines in r_string_vectors(path):
        if len(lines) > 1000:
            yield from "\n".join(line.strip() for line in lines).split("\n\n")


def _moby_dick(folder: Path) -> Iterator[str]:
    for chapter in sorted(folder.glob("chapter_*.txt"), key=lambda path: int(path.stem.split("_")[1])):
        yield from chapter.read_text("utf-8").split("\n\n")


def _bible(folder: Path) -> Iterator[str]:
    old, new = sword_books(folder, "ot"), sword_books(folder, "nt")
    for book in (*(old[i] for i in OLD), *(new[i] for i in NEW)):
        text = re.sub(r"<note.*?</note>|<title.*?</title>", " ", book, flags=re.DOTALL)
        text = re.sub(r'<(?:div sID="[^"]*" type="x-p"|lg sID|chapter)[^>]*>', "\n", text)
        text = re.sub(r"</?(?:w|q)\b[^>]*>", "", text)  # inside a line, where a blank would part a word from its comma
        text = re.sub(r"<[^>]+>", " ", text)
        text = re.sub(r"(?:\b[Tt]he )?(?:\bLord\s*)?\bYahweh\s*(’s)?", r" the Lord\1 ", text)
        text = re.sub(r"(^|[.?!“]\s*)the Lord", r"\1The Lord", text, flags=re.MULTILINE)
        beginning = text.find("In the beginning, God")  # a preface stands before Genesis
        yield from text[max(beginning, 0) :].split("\n")


def _addresses(folder: Path) -> Iterator[str]:
    for address in sorted(folder.glob("*.txt")):
        text = " ".join(address.read_text("utf-8").split())
        if int(address.name[:4]) < FIRST_SPOKEN or len(text) > LONGEST_SPOKEN:
            continue
        sentences = re.split(r"(?<=[.?!])\s+", text)
        passages = (" ".join(sentences[i : i + SENTENCES]) for i in range(0, len(sentences), SENTENCES))
        yield from (passage for passage in passages if not DRY.search(passage))


def _plain(paragraph: str) -> str:
    """ASCII, one line, no marks of italics, no blank before a comma."""
    for sign, plain in PLAIN.items():
        paragraph = paragraph.replace(sign, plain)
    ascii_only = unicodedata.normalize("NFKD", paragraph).encode("ascii", "ignore").decode()
    joined = " ".join(ascii_only.replace("_", "").split())
    return re.sub(r" +([,.;:?!])", r"\1", joined)


def _is_heading(paragraph: str) -> bool:
    return HEADING.fullmatch(paragraph) is not None
