"""A process with little memory that loads checkpoints, for tests that some would exhaust.

Run as a program it reads paths from stdin, one a line, and answers each with one line of JSON.
"""

from __future__ import annotations

import json
import resource
import select
import subprocess
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

MEMORY = 400 << 20  # above what the process has after its imports
SECONDS = 30  # a bound for hangs, far above the time that any file takes


class LimitedLoader:
    """Context manager: the process, restarted after it was killed."""

    def __enter__(self) -> LimitedLoader:
        self._process: subprocess.Popen[str] | None = None
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._kill()

    def load(self, path: Path) -> str | None:
        """Load a checkpoint as weights and as a checkpoint of a run.

        Returns:
            The errors of codectool, joined; None if there were none.

        Raises:
            AssertionError: Another exception, memory or time above the limit.
        """
        if self._process is None:
            command = [sys.executable, "-m", "tests.attacks.limited_loader"]
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], SECONDS)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            self._kill()
            raise AssertionError(f"{path}: " + ("killed" if ready else f"took over {SECONDS} s"))
        answer: dict[str, Any] = json.loads(line)
        assert answer["bug"] is None, answer["bug"]
        error = answer["error"]
        assert error is None or isinstance(error, str)
        return error

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def virtual_memory() -> int:
    """Size of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def main() -> None:
    import torch

    from codectool.checkpoints.load import load_model
    from codectool.errors import CodectoolError
    from codectool.training.checkpoint import read_checkpoint

    torch.set_num_threads(1)
    limit = virtual_memory() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for line in sys.stdin:
        errors, bug = [], None
        for load in (load_model, read_checkpoint):
            try:
                load(Path(line.rstrip("\n")))
            except CodectoolError as error:
                errors.append(str(error))
            except BaseException:
                bug = traceback.format_exc()
        print(json.dumps({"error": " | ".join(errors) or None, "bug": bug}), flush=True)


if __name__ == "__main__":
    main()
