"""Parity at the published sizes, with weights generated from the names of the tensors."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

import codectool
from codectool.codecs.bigcodec.model import BigCodec
from codectool.codecs.supercodec.model import SuperCodec
from tests import full_size_weights
from tests.codecs.test_parity import RELATIVE, assert_same_tokens, relative_error
from tests.conftest import shared


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameter_counts_match_published_models() -> None:
    with torch.device("meta"):
        big, small = BigCodec(full_size_weights.BIGCODEC), SuperCodec(full_size_weights.SUPERCODEC)
    assert count(big) == 159_436_290
    assert count(big.encoder) == 76_530_704
    assert count(big.quantizer) == 83_984
    assert count(small) == 21_708_513
    assert count(small.encoder) == 12_160_160


def key_list(name: str) -> list[str]:
    lines = shared("spec", name).read_text().splitlines()
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    return [f"{row[0]}.{row[1]}" if len(row) == 4 else row[0] for row in rows]


def checksum(state: dict[str, torch.Tensor], keys: list[str]) -> int:
    crc = 0
    for key in keys:
        crc = zlib.crc32(state[key].numpy().tobytes(), zlib.crc32(key.encode(), crc))
    return crc


def assert_golden(codec: codectool.Codec, golden: dict[str, np.ndarray]) -> None:
    tokens = codec.encode(golden["wav"], 16000)
    assert_same_tokens(tokens.codes[0], golden["codes"], golden["margin"])
    audio = codec.decode(tokens)[0]
    assert len(audio) == golden["rec_len"]
    peak = golden["rec_mean_std_peak"][2]
    for found, key in ((audio[:2000], "rec_2000"), (audio[::16], "rec_every_16")):
        assert np.abs(found - golden[key]).max() < RELATIVE * peak
    assert np.abs(audio[-500:] - golden["rec_tail_500"]).max() < RELATIVE * peak

    padded = torch.zeros(1, 1, tokens.num_frames * codec.hop_length)
    padded[0, 0, : len(golden["wav"])] = torch.from_numpy(golden["wav"])
    with torch.inference_mode():
        latent = codec.model.latent(padded)[0].mT.numpy()  # type: ignore[operator]
    assert relative_error(latent[:, :3], golden["enc_first_3_frames"]) < RELATIVE
    assert relative_error(latent[:, -2:], golden["enc_last_2_frames"]) < RELATIVE
    assert relative_error(np.linalg.norm(latent, axis=0), golden["enc_frame_norms"]) < RELATIVE


def load_golden(name: str) -> dict[str, np.ndarray]:
    with np.load(shared("golden", name)) as file:
        return {key: file[key] for key in file.files}


@pytest.mark.full_size
def test_full_size_bigcodec_matches_golden(tmp_path: Path) -> None:
    golden = load_golden("bigcodec_full_golden.npz")
    state = full_size_weights.bigcodec_state(full_size_weights.golden_taps())
    keys = key_list("bigcodec_keys.txt")
    assert state.keys() == set(keys)
    for section in ("CodecEnc", "generator"):
        part = [key for key in keys if key.startswith(f"{section}.")]
        assert checksum(state, part) == golden[f"crc32_{section}"]
    path = tmp_path / "bigcodec.pt"
    full_size_weights.write_bigcodec(path, state)
    del state
    codec = codectool.load("bigcodec", path, device="cpu", padding="reference")
    path.unlink()
    assert_golden(codec, golden)


@pytest.mark.full_size
def test_full_size_supercodec_matches_golden(tmp_path: Path) -> None:
    golden = load_golden("supercodec_full_golden.npz")
    keys = key_list("supercodec_keys.txt")
    state = full_size_weights.supercodec_state()
    assert state.keys() == set(keys)
    assert checksum(state, keys) == golden["crc32_generator"]
    full_size_weights.write_supercodec(tmp_path / "run")
    codec = codectool.load("supercodec", tmp_path / "run", device="cpu", padding="reference")
    assert_golden(codec, golden)
