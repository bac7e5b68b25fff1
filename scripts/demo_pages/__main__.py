"""`python -m scripts.demo_pages FOLDER`: write the demo."""

import sys
from pathlib import Path

from scripts.demo_pages import write_demo

if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("python -m scripts.demo_pages FOLDER")
    write_demo(Path(sys.argv[1]))
    for path in sorted(Path(sys.argv[1]).rglob("*.*")):
        print(f"{path}: {path.stat().st_size / 1000:,.0f} kB")
