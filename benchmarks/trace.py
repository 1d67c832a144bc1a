"""List the files and functions of codectool that encoding one file enters.

    python -m benchmarks.trace [AUDIO]

The codec is HAC on the CPU. It is loaded first, so only `codectool.encoding.encode_file` is traced.
A second run shows what is left once the model is compiled for the CPU.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import codectool
from codectool.encoding import encode_file

PACKAGE = Path(codectool.__file__).parent
SPEECH = Path(__file__).parents[1] / "assets" / "speech_flite.flac"


def trace(work: Callable[[], object]) -> dict[str, list[str]]:
    """Return the functions that ``work`` enters, by file, in order of entry.

    Comprehensions, lambdas, and module and class bodies are part of the code that contains them.
    """
    entered: dict[CodeType, None] = {}

    def profile(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            entered.setdefault(frame.f_code)

    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
    files: dict[str, list[str]] = {}
    for code in entered:
        path = Path(code.co_filename)
        if path.is_relative_to(PACKAGE) and not code.co_name.startswith("<"):
            functions = files.setdefault(str(path.relative_to(PACKAGE)), [])
            functions.append(getattr(code, "co_qualname", code.co_name))  # from Python 3.11 on
    return files


def summary(files: dict[str, list[str]]) -> str:
    """Return for example ``15 files, 75 functions``."""
    return f"{len(files)} files, {sum(map(len, files.values()))} functions"


def main() -> None:
    """Trace the encoding of one file twice and print what the first run enters."""
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else SPEECH
    codec = codectool.load("hac", device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "tokens.hcd")
        first, second = (
            trace(lambda: encode_file(codec, source, target, overwrite=True)) for _ in range(2)
        )
    for file, functions in first.items():
        print(f"{file}: {', '.join(functions)}")
    print(f"first run: {summary(first)}; second run: {summary(second)}")


if __name__ == "__main__":
    main()
