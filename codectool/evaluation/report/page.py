"""Report page: one HTML file with its style, scripts and data."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Literal

from codectool._version import __version__
from codectool.evaluation.report.audio import read_clip
from codectool.evaluation.report.audio_store import AudioStore, EmbeddedAudio, SidecarAudio
from codectool.evaluation.report.data import page_data
from codectool.evaluation.results import Evaluation
from codectool.evaluation.tables import Rows
from codectool.files import atomic_output, check_writable
from codectool.messages import printable

# Concatenated to one script; top-level code uses only earlier files.
SCRIPTS: tuple[str, ...] = (
    *("dom", "format", "table", "summary", "chart", "media", "audio-switcher"),
    *("spectrograms", "transport", "player", "clips", "binomial", "blind-test", "notes"),
    *("shortcuts", "main"),
)
AUDIO_MARK = "<!-- audio -->"  # position of embedded audio in the template


Place = Literal["embed", "beside"]


def check_page(path: Path, audio: Place, overwrite: bool) -> None:
    """Raise a `UsageError` if `write_page` could not write the page or its folder."""
    check_writable(path, overwrite)
    _make_store(path, audio, overwrite)


def _make_store(path: Path, audio: Place, overwrite: bool) -> AudioStore:
    return EmbeddedAudio() if audio == "embed" else SidecarAudio(path, overwrite)


def write_page(
    path: Path,
    evaluation: Evaluation,
    *,
    audio: Place = "embed",
    title: str = "codectool evaluate",
    command: str | None = None,
    overwrite: bool = False,
    on_clip: Callable[[], object] = lambda: None,
) -> None:
    """Write the report of an evaluation; it loads nothing from the network.

    Args:
        path: path of the page.
        evaluation: the results.
        audio: embed audio in the page, or write it to the folder ``<stem>_files`` beside it.
        title: title of the page.
        command: command line to show.
        overwrite: replace an existing page and its folder.
        on_clip: called after each clip.

    Raises:
        UsageError: the page or the folder exists, or cannot be written.
    """
    check_writable(path, overwrite)
    store = _make_store(path, audio, overwrite)
    head, tail = _page_text(evaluation, store, title, command).split(AUDIO_MARK)
    with atomic_output(path, overwrite) as page, store:
        page.write(head.encode(errors="replace"))
        for number, clip in enumerate(evaluation.clips):
            scores = [system.scores[number] for system in evaluation.systems]
            for system, clip_audio in enumerate(read_clip(clip, scores)):
                if clip_audio is not None:
                    store.add(page, number, system, clip_audio)
            on_clip()
        page.write(tail.encode(errors="replace"))


def write_tables(
    path: Path,
    tables: Sequence[tuple[str, Rows]],
    *,
    title: str,
    text: str,
    command: str,
    overwrite: bool = False,
) -> None:
    """Write a page with tables only; it has no script and loads nothing.

    Args:
        path: path of the page.
        tables: heading and rows of each; the first row and the first column are headings.
        title: title of the page.
        text: paragraph below the tables.
        command: command line to show.
        overwrite: replace an existing page.

    Raises:
        UsageError: the page exists, or cannot be written.
    """
    style = _read("page.css")
    policy = f"default-src 'none'; style-src {_hash(style)}; base-uri 'none'; form-action 'none'"

    def escaped(value: str) -> str:
        return html.escape(printable(value))

    def cells(tag: str, values: Sequence[str]) -> str:
        return "".join(f"<{tag}>{escaped(value)}</{tag}>" for value in values)

    sections = []
    for heading, (head, *rows) in tables:
        lines = "\n".join(
            f'<tr><th scope="row">{escaped(name)}</th>{cells("td", values)}</tr>'
            for name, *values in rows
        )
        sections.append(
            f"<section>\n<h2>{escaped(heading)}</h2>\n"
            f'<div class="scroll" tabindex="0" role="region" aria-label="{escaped(heading)}">'
            f"<table>\n<thead><tr>{cells('th', head)}</tr></thead>\n"
            f"<tbody>\n{lines}\n</tbody></table></div>\n</section>"
        )
    page = Template(_read("head.html") + _read("tables.html")).substitute(
        policy=policy,
        style=style,
        title=escaped(title),
        counts=f"codectool {__version__}",
        command=escaped(command),
        sections="\n".join(sections),
        text=escaped(text),
    )
    with atomic_output(path, overwrite) as file:
        file.write(page.encode(errors="replace"))


def _page_text(evaluation: Evaluation, store: AudioStore, title: str, command: str | None) -> str:
    """Return the page without audio."""
    style = _read("page.css")
    script = '"use strict";\n' + "\n".join(_read(f"js/{name}.js") for name in SCRIPTS)
    return Template(_read("head.html") + _read("page.html")).substitute(
        policy=_content_security_policy(script, style, store.sources),
        style=style,
        script=script,
        title=html.escape(printable(title)),
        command=f"<p><code>{html.escape(printable(command))}</code></p>" if command else "",
        counts=html.escape(_counts(evaluation)),
        data=page_data(evaluation, store.url),
    )


def _counts(evaluation: Evaluation) -> str:
    systems, clips = len(evaluation.systems), len(evaluation.clips)
    minutes = sum(clip.seconds for clip in evaluation.clips) / 60
    return (
        f"{systems} system{'s' * (systems != 1)} · {clips} clip{'s' * (clips != 1)} · "
        f"{minutes:.1f} minutes · codectool {__version__}"
    )


def _content_security_policy(script: str, style: str, sources: str) -> str:
    """Allow only this script, this style, and media from ``sources``."""
    return (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        f"img-src {sources}; media-src {sources}; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _read(name: str) -> str:
    file = resources.files("codectool.evaluation.report").joinpath(name)
    return file.read_text(encoding="utf-8")
