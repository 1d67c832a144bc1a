"""Print the difference from the reference implementations: `python -m tests.parity`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

import codectool
from tests import full_size_weights
from tests.codecs.test_parity import CASES, locate, relative_error


def compare_small(name: str) -> tuple[int, int, float]:
    """Return the equal tokens, all tokens, and the largest relative error of the audio."""
    codec = codectool.load(checkpoint=locate(CASES[name]), device="cpu", padding="reference")
    equal = total = 0
    worst = 0.0
    with np.load(locate(f"{name}.npz")) as golden:
        for case in golden["names"]:
            tokens = codec.encode(golden[f"{case}/wav"], 16000)
            equal += int((tokens.codes[0] == golden[f"{case}/codes"]).sum())
            total += tokens.codes.size
            audio = codec.decode(tokens)[0]
            worst = max(worst, relative_error(audio, golden[f"{case}/rec_from_codes"]))
    return equal, total, worst


def compare_full_size(family: str, folder: Path) -> tuple[int, int, float]:
    """Return the same for a model of the published size with generated weights."""
    if family == "bigcodec":
        checkpoint = folder / "bigcodec.pt"
        full_size_weights.write_bigcodec(
            checkpoint, full_size_weights.bigcodec_state(full_size_weights.golden_taps())
        )
    else:
        checkpoint = folder
        full_size_weights.write_supercodec(folder)
    codec = codectool.load(family, checkpoint, device="cpu", padding="reference")
    with np.load(locate(f"{family}_full_golden.npz")) as golden:
        tokens = codec.encode(golden["wav"], 16000)
        audio = codec.decode(tokens)[0]
        error = np.abs(audio[::16] - golden["rec_every_16"]).max() / golden["rec_mean_std_peak"][2]
        equal = int((tokens.codes[0] == golden["codes"]).sum())
    return equal, tokens.codes.size, float(error)


def main() -> None:
    rows = {name: compare_small(name) for name in CASES}
    for family in ("bigcodec", "supercodec"):
        with tempfile.TemporaryDirectory() as folder:
            rows[f"{family}, published size"] = compare_full_size(family, Path(folder))
    for name, (equal, total, error) in rows.items():
        print(f"{name:28} {equal:5} of {total:5} tokens equal, waveform {error:.1e} relative")


if __name__ == "__main__":
    main()
