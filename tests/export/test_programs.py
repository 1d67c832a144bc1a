"""`torch.export` programs compute what the models compute, and load without codectool."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from codectool.codec import Codec
from codectool.export.run import export_codec
from codectool.onnx.metadata import METADATA_KEY, parse_metadata

PROGRAM = """
import sys
import numpy, torch
extra = {"codectool": ""}
encoder = torch.export.load(sys.argv[1] + "/encoder.pt2", extra_files=extra).module()
decoder = torch.export.load(sys.argv[1] + "/decoder.pt2").module()
audio = torch.from_numpy(numpy.load(sys.argv[1] + "/audio.npy"))
codes = encoder(audio)
audio, metadata = decoder(codes), extra["codectool"]
numpy.savez(sys.argv[1] + "/out.npz", codes=codes, audio=audio, metadata=metadata)
assert not any(name.startswith("codectool") for name in sys.modules)
"""


def test_programs_load_without_codectool(small_bigcodec: Codec, tmp_path: Path) -> None:
    files = export_codec(small_bigcodec, tmp_path / "out", "torch-export")
    assert [file.name for file in files] == ["encoder.pt2", "decoder.pt2"]
    assert all(file.check.equal == file.check.tokens for file in files)
    wave = np.random.default_rng(0).normal(0, 0.1, (1, 1, 37 * small_bigcodec.hop_length))
    np.save(tmp_path / "out" / "audio.npy", wave.astype(np.float32))
    command = [sys.executable, "-P", "-c", PROGRAM, str(tmp_path / "out")]
    subprocess.run(command, check=True, cwd=tmp_path)
    out = np.load(tmp_path / "out" / "out.npz")
    (codes,) = small_bigcodec.runner.encode([wave[0].astype(np.float32)])
    (audio,) = small_bigcodec.runner.decode([codes])
    assert np.array_equal(out["codes"][0], codes)
    np.testing.assert_allclose(out["audio"][0], audio, atol=1e-5)
    metadata = parse_metadata(str(out["metadata"]), METADATA_KEY)
    assert metadata.fingerprint == small_bigcodec.fingerprint
