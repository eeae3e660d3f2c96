"""Write docs/findings/README.md anew: every page with its sentence. With --check nothing is written, and a difference
is an error."""

from __future__ import annotations

import sys
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "docs" / "findings"
_HEAD = """# Findings

A page for each thing that the audit or the doctor may say: what was seen, how sure that is and what else it could be,
and what to do. Each finding names its page. Made by `python scripts/index_findings.py`.

| finding | what it says |
|---|---|
"""


def index(folder: Path) -> str:
    """The index of the pages in ``folder``, in the order of their names."""
    pages = sorted(path for path in folder.glob("*.md") if path.name != "README.md")
    return _HEAD + "".join(f"| [{page.stem}]({page.name}) | {sentence(page)} |\n" for page in pages)


def sentence(page: Path) -> str:
    """What stands between a page's title and its first heading, in one line."""
    text = page.read_text(encoding="utf-8").partition("\n")[2]
    return " ".join(text.partition("\n## ")[0].split()).replace("|", r"\|")


if __name__ == "__main__":
    written = FOLDER / "README.md"
    if "--check" not in sys.argv:
        written.write_text(index(FOLDER), encoding="utf-8")
    elif written.read_text(encoding="utf-8") != index(FOLDER):
        sys.exit(f"{written} is not up to date: run python scripts/index_findings.py")
