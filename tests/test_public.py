"""The public face: what can be imported, what importing costs, what is documented."""

import re
import subprocess
import sys
from pathlib import Path

import clearhead
from clearhead import settings

ROOT = Path(__file__).parents[1]


def test_all_is_sorted_and_complete():
    assert clearhead.__all__ == sorted(clearhead.__all__)
    public = {
        name
        for name, value in vars(clearhead).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith("clearhead")
    }
    assert (
        public | {"__version__", "eviction", "functions", *clearhead.LATE_NAMES}
        == set(clearhead.__all__)
        <= set(dir(clearhead))
    )


def test_everything_public_has_a_docstring():
    for name in clearhead.__all__:
        if name != "__version__":
            assert (getattr(clearhead, name).__doc__ or "").strip(), name


def test_importing_loads_numpy_alone():
    code = "import sys; known = set(sys.modules); import clearhead; print(*set(sys.modules) - known)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert {name.split(".")[0] for name in loaded} - set(sys.stdlib_module_names) - {"clearhead", "numpy"} == set()
    assert not [name for name in loaded if name.startswith("clearhead.gpu")]
    late = {f"clearhead.{module}" for module in clearhead.LATE_NAMES.values()}
    assert not late & set(loaded), "what is loaded when asked for is loaded by the import"
    assert "clearhead.kernels.ir.code" not in loaded  # kernels are written only when one must be compiled


def test_a_warm_start_writes_no_kernel(tmp_path):
    code = (
        "import sys, numpy as np, clearhead; clearhead.self_attention(np.eye(3)); "
        "from clearhead.machine.compile import compilations; "
        "print(compilations, 'clearhead.kernels.ir.code' in sys.modules)"
    )
    environment = {"CLEARHEAD_CACHE_DIR": str(tmp_path), "PATH": "", "PYTHONPATH": ":".join(sys.path)}
    runs = [
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment).stdout
        for _ in range(2)
    ]
    assert runs[0].split()[0] == "1"
    assert runs[1].split() == ["0", "False"]


def test_settings_are_one_table():
    table = settings.table()
    for setting in settings.ALL:
        assert setting.name.startswith("CLEARHEAD_")
        assert f"`{setting.name}`" in table


def test_no_variable_is_read_outside_the_table():
    package = Path(clearhead.__file__).parent
    for path in package.rglob("*.py"):
        if path.name == "settings.py":
            continue
        text = path.read_text(encoding="utf-8")
        assert re.search(r"(environ|getenv).{0,8}CLEARHEAD_", text) is None, path


def test_the_docs_print_the_table_of_settings():
    page = Path(__file__).parents[1] / "docs" / "settings.md"
    assert settings.table() in page.read_text(encoding="utf-8")


def test_what_pages_write_after_clearhead_is_there():
    """`clearhead.view.show(seen)` works after `import clearhead` alone, and no page names what does not exist."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    blocks = [
        block for page in pages for block in re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    ]
    code = re.sub(r"^(>>> )?(from|import) .*$", "", "\n".join(blocks), flags=re.MULTILINE)
    named = set(re.findall(r"(?<![\w./\"])clearhead\.([a-z_]\w*)", code)) - {"adapters"}  # these are imported
    assert {"view", "model", "watch"} <= named
    names = sorted(named | clearhead.LATE_MODULES - {"notebook"})
    code = f"import clearhead; print([name for name in {names} if not hasattr(clearhead, name)])"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"
