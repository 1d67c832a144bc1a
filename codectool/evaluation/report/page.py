"""The page: one file of HTML with its style, its scripts and what was found."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from string import Template
from typing import Literal

from codectool._version import __version__
from codectool.evaluation.report.audio import clip_sounds
from codectool.evaluation.report.audio_store import Beside, Shelf, Within
from codectool.evaluation.report.data import facts_json
from codectool.evaluation.results import Evaluation
from codectool.files import atomic_output, check_writable

# In this order they make one script: each uses only what stands before it.
SCRIPTS: tuple[str, ...] = (
    "dom",
    "format",
    "table",
    "summary",
    "chart",
    "media-urls",
    "audio-switcher",
    "spectrograms",
)
SCRIPTS = (
    *SCRIPTS,
    "transport",
    "player",
    "clips",
    "binomial",
    "blind-test",
    "notes",
    "shortcuts",
    "main",
)
SPLIT = "<!-- sounds -->"  # where the template makes room for the blocks of sounds


def write_page(
    path: Path,
    evaluation: Evaluation,
    *,
    audio: Literal["embed", "beside"] = "embed",
    title: str = "codectool evaluate",
    command: str | None = None,
    overwrite: bool = False,
    on_clip: Callable[[], object] = lambda: None,
) -> None:
    """Write a page to read and to listen to; it needs no network.

    Args:
        path: name of the page.
        evaluation: what was found.
        audio: within the page, or in a folder beside it, `<stem>_files`.
        title: heading of the page.
        command: how the evaluation was asked for; shown as it is.
        overwrite: replace a page and a folder that have these names.
        on_clip: called after each clip.

    Raises:
        UsageError: the page or the folder exists, or cannot be made.
    """
    check_writable(path, overwrite)
    shelf = Within() if audio == "embed" else Beside(path, overwrite)
    head, tail = page_text(evaluation, shelf, title, command).split(SPLIT)
    with atomic_output(path, overwrite) as page, shelf:
        page.write(head.encode(errors="replace"))
        for number, clip in enumerate(evaluation.clips):
            scores = [system.scores[number] for system in evaluation.systems]
            for system, sound in enumerate(clip_sounds(clip, scores)):
                if sound is not None:
                    shelf.put(page, number, system, sound)
            on_clip()
        page.write(tail.encode(errors="replace"))


def page_text(evaluation: Evaluation, shelf: Shelf, title: str, command: str | None) -> str:
    """The page without its sounds."""
    style = _read("page.css")
    script = '"use strict";\n' + "\n".join(_read(f"js/{name}.js") for name in SCRIPTS)
    seconds = sum(clip.seconds for clip in evaluation.clips)
    return Template(_read("page.html")).substitute(
        policy=_policy(script, style, shelf.sources),
        style=style,
        script=script,
        title=html.escape(title),
        command=f"<p><code>{html.escape(command)}</code></p>" if command else "",
        counts=html.escape(_counts(evaluation, seconds)),
        facts=facts_json(evaluation, shelf.link),
    )


def _counts(evaluation: Evaluation, seconds: float) -> str:
    counts = (
        _plural(len(evaluation.systems), "system"),
        _plural(len(evaluation.clips), "clip"),
        f"{seconds / 60:.1f} minutes",
        f"codectool {__version__}",
    )
    return " · ".join(counts)


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _policy(script: str, style: str, sources: str) -> str:
    """Content-Security-Policy: nothing but this script, this style, and these sounds."""
    rules = (
        "default-src 'none'",
        f"script-src {_hash(script)}",
        f"style-src {_hash(style)}",
        f"img-src {sources}",
        f"media-src {sources}",
        "base-uri 'none'",
        "form-action 'none'",
    )
    return "; ".join(rules)


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _read(name: str) -> str:
    file = resources.files("codectool.evaluation.report").joinpath(name)
    return file.read_text(encoding="utf-8")
