"""External programs that `evaluate --codec` can run."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator

from codectool.doctor.finding import Finding

# Programs and Debian package of a codec, and the argument that prints the version.
PROGRAMS = {
    "opus": (("opusenc", "opusdec"), "opus-tools", "--version"),
    "codec2": (("c2enc", "c2dec"), "codec2", None),
    "speex": (("speexenc", "speexdec"), "speex", "--version"),
    "amrnb, amrwb, gsm": (("ffmpeg",), "ffmpeg", "-version"),
}
TIMEOUT_SECONDS = 20


def check_programs() -> Iterator[Finding]:
    """Check which codecs `evaluate --codec` can compare with."""
    for codec, (programs, package, argument) in PROGRAMS.items():
        missing = [program for program in programs if shutil.which(program) is None]
        if missing:
            value = f"{', '.join(missing)} not found"
            advice = f"install {package} to use `evaluate --codec {codec.partition(',')[0]}`"
            yield Finding("programs", codec, value, "note", advice)
            continue
        output = _output([programs[0], argument]) if argument else ""
        version = re.search(r"\d+(\.\d+)+\S*|\d+\.\d+", output)
        yield Finding(
            "programs", codec, " ".join(filter(None, (programs[0], version and version[0])))
        )


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return (done.stdout or done.stderr).decode(errors="replace").partition("\n")[0]
