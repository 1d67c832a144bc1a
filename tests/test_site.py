"""The documentation site, and the links between documents."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.cli.conftest import Run, run  # noqa: F401  (fixture)
from tests.test_docs import ROOT, code_blocks

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("assets/*.md")])
LINK = re.compile(r"\]\(([^)\s#:]+)(?:#[^)\s]*)?\)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_to_files_of_the_repository(document: Path) -> None:
    for target in LINK.findall(document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), target


def test_readme_links_all_guides_and_reference_pages() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = [*ROOT.glob("docs/guides/*.md"), *ROOT.glob("docs/reference/*.md")]
    names = {page.relative_to(ROOT).as_posix() for page in pages}
    missing = {name for name in names if f"({name})" not in readme}
    assert missing == {"docs/reference/docstrings.md"}  # in python-api.md


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_spec("material") is None or find_spec("mkdocstrings") is None:
        pytest.skip("mkdocs-material or mkdocstrings is not installed: pip install '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    # the config is strict: warnings are errors, but `--quiet` would hide them from that
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_site_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    loaded = re.compile(
        r"<(?:script|img|audio|link|iframe)\b[^>]*?(?:src|href)=[\"']?(?:https?:)?//"
    )
    for page in pages:
        assert not loaded.search(page.read_text(encoding="utf-8")), page


def test_site_has_docstrings_and_the_files_that_pages_show(site: Path) -> None:
    page = (site / "reference" / "docstrings.html").read_text(encoding="utf-8")
    for name in ("codectool.load", "codectool.Codec.encode", "codectool.container.Reader"):
        assert f'id="{name}"' in page
    assert "Sampling rate of the model in Hz" in page
    for name in ("assets/speech_espeak.flac", "audio/speech_espeak_hac.flac", "CHANGELOG.html"):
        assert (site / name).is_file()
    index = (site / "index.html").read_text(encoding="utf-8")
    assert 'src="audio/speech_espeak_hac.flac"' in index


def test_landing_page_shows_real_output_and_audio(run: Run, tmp_path: Path) -> None:  # noqa: F811
    (shown,) = code_blocks("docs/index.md", 'console title="Command line"')
    packed = tmp_path / "speech.hcd"
    run("encode", ROOT / "assets" / "speech_espeak.flac", packed, "--device", "cpu")
    output = run("info", packed).text
    rows = [line for line in shown.splitlines() if not line.startswith("$")]
    assert len(rows) == 3
    for row in rows:
        assert row in output
    back = tmp_path / "speech.flac"
    run("decode", packed, back, "--device", "cpu")
    shown_audio, _ = soundfile.read(ROOT / "docs" / "audio" / "speech_espeak_hac.flac")
    np.testing.assert_allclose(soundfile.read(back)[0], shown_audio, atol=1e-3)
