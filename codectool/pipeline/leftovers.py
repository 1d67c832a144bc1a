"""Temporary files of runs that were killed."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from codectool.pipeline.journal import JOURNAL_NAME

# As `codectool.files.atomic_output` calls them: the first 100 characters of the name, and chance.
PATTERN = re.compile(r"\.(.+)\.[a-z0-9_]{8}\.part", re.DOTALL)


def remove_leftovers(out_dir: Path, targets: Iterable[Path]) -> int:
    """Remove temporary files of these targets and of the journal; nobody else may write there.

    Returns:
        How many there were.
    """
    names: defaultdict[Path, set[str]] = defaultdict(set)
    names[out_dir].add(JOURNAL_NAME)
    for target in targets:
        names[target.parent].add(target.name[:100])
    removed = 0
    for folder, known in names.items():
        try:
            found = os.listdir(folder)
        except OSError:
            continue  # it is not there yet
        for name in found:
            match = PATTERN.fullmatch(name)
            if match and match[1] in known:
                (folder / name).unlink(missing_ok=True)
                removed += 1
    return removed
