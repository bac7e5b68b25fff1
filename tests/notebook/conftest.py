"""marimo and JupyterLab on this computer, each with folders of its own, for the tests in a browser."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, FrameLocator, Page

HOST = "127.0.0.1"
READY = 60  # seconds


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        return int(taken.getsockname()[1])


@contextmanager
def serving(command: list[str], address: str, folder: Path, **variables: str) -> Iterator[str]:
    """A server, once it answers, until the end of the block."""
    own = {f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    own |= {f"JUPYTERLAB_{name}_DIR": str(folder / name.lower()) for name in ("SETTINGS", "WORKSPACES")}
    own |= {"XDG_CONFIG_HOME": str(folder / "xdg"), "MARIMO_SKIP_UPDATE_CHECK": "1"}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=folder, stdout=log, stderr=log, env={**os.environ, **own, **variables}
        )
        try:
            for _ in range(10 * READY):
                assert server.poll() is None, (folder / "log").read_text()
                try:
                    urllib.request.urlopen(address, timeout=5).close()  # noqa: S310
                    break
                except OSError:
                    time.sleep(0.1)
            yield address
        finally:
            server.terminate()
            server.wait(20)


class Shown:
    """A notebook in a browser, and every address outside this computer that it asked for: none, at the end."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.elsewhere: list[str] = []
        self.faults: list[str] = []
        page.on("request", self.requested)
        page.on("pageerror", lambda error: self.faults.append(str(error)))

    def requested(self, request: Any) -> None:
        if not request.url.startswith((f"http://{HOST}:", "data:", "blob:", "about:")):
            self.elsewhere.append(request.url)

    def widget(self, number: int) -> FrameLocator:
        """What is inside a widget's frame."""
        return self.page.locator("iframe[title^=clearhead]").nth(number).content_frame


@pytest.fixture
def shown(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Shown]:
    """A fresh window; `@pytest.mark.parametrize("shown", [{…}], indirect=True)` gives its likings."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000}, **getattr(request, "param", {}))
    found = Shown(context.new_page())
    yield found
    context.close()
    assert found.elsewhere == []
    assert found.faults == []


@pytest.fixture
def marimo(tmp_path: Path) -> Callable[[str], Any]:
    """Runs a marimo notebook; gives its address."""

    def run(source: str) -> Any:
        (tmp_path / "notebook.py").write_text(source, "utf-8")
        port = free_port()
        command = ["marimo", "run", "notebook.py", "--headless", "--host", HOST, "--port", str(port), "--no-token"]
        return serving(command, f"http://{HOST}:{port}", tmp_path)

    return run


@pytest.fixture
def jupyter(tmp_path: Path) -> Callable[..., Any]:
    """Serves JupyterLab, in the dark if asked to, with notebooks that it trusts; gives its address."""

    def run(notebooks: dict[str, Any], dark: bool = False) -> Any:
        import nbformat
        from nbformat.sign import NotebookNotary

        (tmp_path / "data").mkdir()
        notary = NotebookNotary(data_dir=str(tmp_path / "data"))
        for name, notebook in notebooks.items():
            nbformat.write(notebook, tmp_path / f"{name}.ipynb")
            notary.sign(notebook)
        theme = tmp_path / "settings/@jupyterlab/apputils-extension/themes.jupyterlab-settings"
        theme.parent.mkdir(parents=True)
        theme.write_text(json.dumps({"theme": "JupyterLab Dark" if dark else "JupyterLab Light"}))
        quiet = tmp_path / "settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
        quiet.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
        port = free_port()
        command = [
            "jupyterlab", "--no-browser", "--allow-root", "--ip", HOST, f"--port={port}",
            "--IdentityProvider.token=", "--ServerApp.password=",
        ]  # fmt: skip
        return serving(command, f"http://{HOST}:{port}/api", tmp_path)

    return run
