"""Write the demo: `python scripts/demo_pages FOLDER`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from demo_pages import write_demo

if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("python scripts/demo_pages FOLDER")
    write_demo(Path(sys.argv[1]))
    for path in sorted(Path(sys.argv[1]).rglob("*.*")):
        print(f"{path}: {path.stat().st_size / 1000:,.0f} kB")
