"""A run that is killed any number of times ends with the outputs of an undisturbed run."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from pathlib import Path

import pytest

from tests.pipeline.killed import run_and_die
from tests.pipeline.trees import FILES, contents, make_tree, outputs, write_audio

KILLS = 10  # of each kind


@pytest.fixture(scope="module")
def processes() -> multiprocessing.context.ForkServerContext:
    """Return a server that starts processes quickly, because it has imported torch."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.pipeline.killed"])
    return context


@pytest.mark.parametrize(("operation", "family"), [("encode", "bigcodec"), ("reconstruct", "hac")])
def test_killed_runs_resume_to_the_same_outputs(
    processes: multiprocessing.context.ForkServerContext,
    checkpoints: dict[str, Path],
    tmp_path: Path,
    operation: str,
    family: str,
) -> None:
    in_dir = make_tree(tmp_path / "in")
    for number in range(4):
        write_audio(in_dir / f"more/{number}.wav", 1, 16000, 2000 + number)

    def run(out_dir: Path, moment: int | None) -> int:
        arguments = (operation, checkpoints[family], in_dir, out_dir, moment)
        process = processes.Process(target=run_and_die, args=arguments)
        process.start()
        process.join()
        assert process.exitcode is not None
        return process.exitcode

    assert run(tmp_path / "undisturbed", None) == 0
    expected = contents(tmp_path / "undisturbed")
    assert len(expected) == len(FILES) + 4 + 1
    out_dir = tmp_path / "out"
    rng = random.Random(0)
    kills = 0
    while kills < KILLS:
        # half of the runs are killed at the start, the others anywhere
        moment = rng.randint(1, 8) if kills % 2 else rng.randint(9, 60)
        code = run(out_dir, moment)
        assert code in (0, -signal.SIGKILL)
        kills += code != 0
        for name, data in contents(out_dir).items():
            if not name.endswith(".part") and not os.path.basename(name).startswith("."):
                assert data == expected[name]
        if code == 0:  # the run had too little work left to be killed: remove some outputs
            assert contents(out_dir) == expected
            # not the journal: outputs that it does not list would not be replaced
            for name in rng.sample(sorted(outputs(out_dir)), 8):
                (out_dir / name).unlink()
    assert run(out_dir, None) == 0
    assert contents(out_dir) == expected
