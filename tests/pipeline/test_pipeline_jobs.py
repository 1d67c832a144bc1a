"""Which input becomes which output."""

from __future__ import annotations

from pathlib import Path

from codectool.audio.discovery import strip_suffix
from codectool.pipeline.jobs import make_jobs


def to_hcd(name: str) -> str:
    return strip_suffix(name, {".wav", ".flac"}) + ".hcd"


def to_wav(name: str) -> str:
    return strip_suffix(name, {".wav", ".flac"}) + ".wav"


def test_make_jobs_skips_outputs_of_earlier_runs(tmp_path: Path) -> None:
    """The input folder lies in the output folder, and an earlier run wrote to both."""
    names = ["x.wav", "y.wav"]
    jobs, rejected = make_jobs(names, tmp_path / "in", tmp_path, to_hcd, {"in/y.wav"})
    assert [job.target for job in jobs] == [tmp_path / "x.hcd"]
    assert rejected == []


def test_make_jobs_rejects_a_second_input_for_the_same_output() -> None:
    jobs, rejected = make_jobs(["x.flac", "x.wav"], Path("in"), Path("out"), to_hcd, set())
    assert [job.source_name for job in jobs] == ["x.flac"]
    (second,) = rejected
    assert second.source == Path("in/x.wav")
    assert second.reason == "would become out/x.hcd, as in/x.flac does; rename one of them"


def test_make_jobs_rejects_outputs_that_would_replace_an_input() -> None:
    """`out/in/in/x.wav` would become `out/in/x.wav`, which is an input too."""
    names = ["in/x.wav", "x.wav", "y.flac"]
    jobs, rejected = make_jobs(names, Path("out/in"), Path("out"), to_wav, set())
    assert [job.source_name for job in jobs] == ["x.wav", "y.flac"]
    assert [file.reason for file in rejected] == [
        "would replace out/in/x.wav, which is an input; name another folder"
    ]
