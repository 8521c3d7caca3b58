"""docs/performance.md: one section for each measuring command, which replaces its own and leaves the others alone."""

from __future__ import annotations

import re
from pathlib import Path

from diff_v2m.common.files import atomic

PERFORMANCE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"


def write_section(path: Path, title: str, text: str) -> None:
    """Put `text` under "## title" of the markdown file at `path`, at the end if there is no such section yet."""
    before = path.read_text(encoding="utf-8") if path.exists() else "# Performance\n"
    head, *sections = re.split(r"^(?=## )", before, flags=re.MULTILINE)
    section = f"## {title}\n\n{text.strip()}"
    titles = [old.partition("\n")[0] for old in sections]
    if f"## {title}" in titles:
        sections[titles.index(f"## {title}")] = section
    else:
        sections.append(section)
    with atomic(path) as part:
        part.write_text("\n\n".join(piece.strip() for piece in [head, *sections]) + "\n", encoding="utf-8")
