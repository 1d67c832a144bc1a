"""However often a run is killed, at the end there is what an undisturbed one would have left."""

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
    """Processes that start at once: their parent has imported torch, and nothing runs in it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.pipeline.killed"])
    return context


@pytest.mark.parametrize(("verb", "family"), [("encode", "bigcodec"), ("reconstruct", "hac")])
def test_killed_and_started_again(
    processes: multiprocessing.context.ForkServerContext,
    checkpoints: dict[str, Path],
    tmp_path: Path,
    verb: str,
    family: str,
) -> None:
    in_dir = make_tree(tmp_path / "in")
    for number in range(4):
        write_audio(in_dir / f"more/{number}.wav", 1, 16000, 2000 + number)

    def run(out_dir: Path, moment: int | None) -> int:
        arguments = (verb, checkpoints[family], in_dir, out_dir, moment)
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
    died = 0
    while died < KILLS:
        # half of the runs die while they begin, the others anywhere
        moment = rng.randint(1, 8) if died % 2 else rng.randint(9, 60)
        code = run(out_dir, moment)
        assert code in (0, -signal.SIGKILL)
        died += code != 0
        for name, data in contents(out_dir).items():
            if not name.endswith(".part") and not os.path.basename(name).startswith("."):
                assert data == expected[name]
        if code == 0:  # it had less to do than that: give it more
            assert contents(out_dir) == expected
            # outputs only: without the journal the rest would be strangers, which are not replaced
            for name in rng.sample(sorted(outputs(out_dir)), 8):
                (out_dir / name).unlink()
    assert run(out_dir, None) == 0
    assert contents(out_dir) == expected
