"""What has been tried on which system, as `clearhead doctor` and docs/platforms.md say it.

Responsible for the words alone; the self-check is `clearhead.cli.doctor`'s.
"""

import platform

X86, ARM = ("x86_64", "amd64"), ("aarch64", "arm64")
NEVER_RUN = "never run before: please report what the self-check below says"
TRIED = {
    ("Linux", X86): "all tests run here before each release",
    ("Linux", ARM): "every kernel gave x86's bits under emulation; the package as a whole has never been run",
    ("Windows", X86): "every kernel gave Linux's bits under Wine; the package as a whole has never been run",
    ("Windows", ARM): f"kernels were compiled and their assembly checked; {NEVER_RUN}",
    ("Darwin", ARM): f"kernels were compiled and their assembly checked; {NEVER_RUN}",
}


def tried(system: str | None = None, machine: str | None = None) -> str:
    """What has been tried on a system and processor, by default on this one.

    >>> tried("Darwin", "arm64")[:64]
    'kernels were compiled and their assembly checked; never run befo'
    """
    system, machine = system or platform.system(), (machine or platform.machine()).lower()
    return next((words for (name, names), words in TRIED.items() if name == system and machine in names), NEVER_RUN)
