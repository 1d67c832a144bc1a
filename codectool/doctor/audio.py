"""Audio libraries: which formats can be read, and resampling."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

from codectool.doctor.finding import Finding, reason

OLDEST_LIBSNDFILE = (1, 1)  # with MP3


def check_audio() -> Iterator[Finding]:
    """Check libsndfile, FFmpeg and soxr."""
    yield _libsndfile()
    yield _ffmpeg()
    yield _resampling()


def _libsndfile() -> Finding:
    try:
        soundfile = import_module("soundfile")
        formats, version = soundfile.available_formats(), soundfile.__libsndfile_version__
        subtypes = soundfile.available_subtypes("OGG")
    except Exception as error:  # an OSError if there is no libsndfile
        advice = (
            "run `pip install --force-reinstall soundfile`, whose wheels contain libsndfile, or "
            "install your system's libsndfile"
        )
        return Finding("audio", "libsndfile", reason(error), "error", advice)
    names = {"WAV": "WAV" in formats, "FLAC": "FLAC" in formats}
    names |= {"Ogg Vorbis": "VORBIS" in subtypes, "Opus": "OPUS" in subtypes}
    names |= {"MP3": "MP3" in formats}
    value = f"{version}: {', '.join(name for name, present in names.items() if present)}"
    missing = [name for name, present in names.items() if not present]
    if missing:
        advice = f"without {', '.join(missing)}: install soundfile from a wheel, or libsndfile 1.1"
        return Finding("audio", "libsndfile", value, "warning", advice)
    return Finding("audio", "libsndfile", value)


def _ffmpeg() -> Finding:
    name = "FFmpeg (m4a, mp4, webm, wma, amr)"
    try:
        av = import_module("av")
    except ImportError as error:
        absent = isinstance(error, ModuleNotFoundError)
        value = "not installed" if absent else reason(error)
        advice = "run `pip install 'codectool[formats]'` to read these formats"
        return Finding("audio", name, value, "note" if absent else "warning", advice)
    codec = av.library_versions.get("libavcodec", ())
    return Finding("audio", name, f"PyAV {av.__version__}, libavcodec {'.'.join(map(str, codec))}")


def _resampling() -> Finding:
    try:
        numpy, soxr = import_module("numpy"), import_module("soxr")
        resampled = soxr.resample(numpy.zeros(4410, numpy.float32), 44100, 24000)
    except Exception as error:
        advice = "run `pip install --force-reinstall soxr numpy`"
        return Finding("audio", "resampling", reason(error), "error", advice)
    if len(resampled) != 2400:
        value = f"soxr {soxr.__version__}: 4410 samples became {len(resampled)}, not 2400"
        return Finding("audio", "resampling", value, "error", "reinstall soxr")
    return Finding("audio", "resampling", f"soxr {soxr.__version__}")
