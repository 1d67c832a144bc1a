"""Tokens and audio against the reference implementations, on the CPU in float32."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import codectool
from codectool.codec import Codec
from tests.batches import decode_batch, encode_batch
from tests.conftest import GOLDEN, SHARED, shared

RELATIVE = 1e-4

CASES = {
    "bigcodec_micro": "bigcodec_micro.pt",
    "supercodec_micro": "supercodec_micro",
    "bigcodec_tiny": "bigcodec_tiny.pt",
    "bigcodec_tiny_1q": "bigcodec_tiny_1q.pt",
    "bigcodec_tiny_lightning": "bigcodec_tiny_lightning.ckpt",
    "supercodec_tiny": "supercodec_tiny",
    "supercodec_tiny8": "supercodec_tiny8",
}


def locate(name: str) -> Path:
    """Return the path of a golden file; tests/golden holds fewer cases than the shared folder."""
    copied = (GOLDEN / name).exists() and not SHARED.is_dir()
    return GOLDEN / name if copied else shared("golden", name)


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def assert_same_tokens(codes: np.ndarray, expected: np.ndarray, margin: np.ndarray) -> None:
    """Assert that tokens are equal, except where two codewords are equally near within rounding."""
    assert codes.shape == expected.shape
    wrong = codes != expected
    for frame in np.flatnonzero(wrong.any(0)):
        stage = np.flatnonzero(wrong[:, frame])[0]  # later stages follow from the first difference
        assert margin[stage, frame] < 1e-5, f"frame {frame}, stage {stage}: no tie"


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[Codec, dict[str, np.ndarray]]:
    name = request.param
    codec = codectool.load(checkpoint=locate(CASES[name]), device="cpu", padding="reference")
    with np.load(locate(f"{name}.npz")) as file:
        golden = {key: file[key] for key in file.files}
    return codec, golden


def test_tokens_and_audio_match_golden(case: tuple[Codec, dict[str, np.ndarray]]) -> None:
    codec, golden = case
    for name in golden["names"]:
        wave = golden[f"{name}/wav"]
        tokens = codec.encode(wave, 16000)
        assert_same_tokens(tokens.codes[0], golden[f"{name}/codes"], golden[f"{name}/margin"])
        audio = codec.decode(tokens)[0]
        expected = golden[f"{name}/rec_from_codes"]
        assert len(audio) == len(expected) == tokens.num_samples
        assert relative_error(audio, expected) < RELATIVE, name

        frames = tokens.num_frames
        padded = np.zeros(frames * codec.hop_length, np.float32)
        padded[: len(wave)] = wave[: len(padded)]
        with torch.inference_mode():
            latent = codec.model.latent(torch.from_numpy(padded)[None, None])[0].mT  # type: ignore[operator]
        assert relative_error(latent.numpy(), golden[f"{name}/enc"]) < RELATIVE, name


def test_lossless_padding_matches_reference_padding_for_whole_frames() -> None:
    codec = codectool.load(checkpoint=GOLDEN / "supercodec_micro", device="cpu")
    with np.load(GOLDEN / "supercodec_micro.npz") as golden:
        tokens = codec.encode(golden["noise_3200/wav"], 16000)
        np.testing.assert_array_equal(tokens.codes[0], golden["noise_3200/codes"])


@pytest.mark.parametrize("name", ["bigcodec_micro", "bigcodec_tiny", "bigcodec_tiny_1q"])
def test_config_inferred_from_shapes_matches_config_file(name: str) -> None:
    config = json.loads(locate(f"{name}.json").read_text())
    given = codectool.load("bigcodec", locate(f"{name}.pt"), config=config, device="cpu")
    inferred = codectool.load("bigcodec", locate(f"{name}.pt"), device="cpu")
    assert given.fingerprint == inferred.fingerprint
    assert given.model.hyper_parameters == inferred.model.hyper_parameters


def test_items_of_a_batch_are_independent() -> None:
    """The reference SuperCodec uses the gate of the first item for the whole batch."""
    codec = codectool.load(checkpoint=locate("supercodec_tiny"), device="cpu")
    with np.load(shared("golden", "supercodec_tiny.npz")) as golden:
        batch = torch.from_numpy(golden["batch/wav"])[:, None]
        with torch.inference_mode():
            codes = encode_batch(codec.model, batch)
            audio = decode_batch(codec.model, codes)
        np.testing.assert_array_equal(codes[1].numpy().T, golden["batch/codes_item1_alone"][0])
        assert (golden["batch/codes_upstream_batched"][1] != codes[1].numpy().T).any()
        assert relative_error(audio[1, 0].numpy(), golden["batch/rec_item1_alone"]) < RELATIVE


def test_fingerprints_are_unchanged() -> None:
    """Fingerprints are stored in files, so renaming a tensor must not change them."""
    for name, expected in {"bigcodec_micro.pt": "218b61c7", "supercodec_micro": "fe0e1f7f"}.items():
        assert codectool.load(checkpoint=GOLDEN / name, device="cpu").fingerprint == expected
