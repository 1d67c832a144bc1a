"""MkDocs hooks: links that work in the repository and on the site.

The site holds ``docs/``, and these other files of the repository under their own names. A link from
a page to any other file of the repository becomes plain text.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
OTHER_FILES = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "assets/*.png", "assets/*.flac")
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the files outside ``docs/``."""
    for pattern in OTHER_FILES:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Point links at the place that a file of the repository has on the site."""
    source = page.file.src_uri
    in_repository = source if (ROOT / source).is_file() else f"docs/{source}"

    def replace(match: re.Match[str]) -> str:
        image, text, target, anchor = match.groups(default="")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(in_repository), target))
        place = path.removeprefix("docs/")
        if files.get_file_from_path(place) is not None:
            relative = posixpath.relpath(place, posixpath.dirname(source) or ".")
            return f"{image}[{text}]({relative}{anchor})"
        return text if (ROOT / path).exists() else match[0]

    return LINK.sub(replace, markdown)
