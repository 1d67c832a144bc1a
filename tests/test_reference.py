"""The generated reference pages are current."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

GENERATOR = Path(__file__).parents[1] / "docs" / "reference" / "generate.py"


def test_generated_reference_is_current() -> None:
    done = subprocess.run(
        [sys.executable, GENERATOR, "--check"],
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
