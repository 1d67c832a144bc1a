"""Measures with known answers, and codecs whose quality is known."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from codectool.codecs.chunking import SegmentDecoder, SegmentEncoder
from torch import Tensor

from codectool.codec import Codec
from codectool.codecs.base import CodecModel, Context, Latency
from codectool.errors import AudioError
from codectool.evaluation.tokens.usage import codebook_usage
from codectool.training.validation import ValidationClip, intelligibility, load_clips, validate


class SixteenBits(CodecModel):
    """Four samples a frame, each a token of 16 bits: as good as a codec gets."""

    family = "sixteen"
    sample_rate = 16000
    hop_length = 4
    codebook_sizes = (65536,) * 4
    decode_context = Context(0, 0)

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(gain))

    @classmethod
    def from_state(cls, state: Any, config: Any = None) -> SixteenBits:
        raise NotImplementedError

    @property
    def hyper_parameters(self) -> dict[str, Any]:
        return {}

    @property
    def latency(self) -> Latency:
        return Latency(0, 0)

    def stream_encoder(self, block_frames: int | None = None) -> SegmentEncoder:
        return SegmentEncoder(self, block_frames or 100)

    def stream_decoder(self, block_frames: int | None = None) -> SegmentDecoder:
        return SegmentDecoder(self, block_frames or 100)

    def reference_frames(self, num_samples: int) -> int:
        return num_samples // 4

    def encode(self, wave: Tensor) -> Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        return ((wave * 32767).round().long() + 32768).unflatten(-1, (-1, 4))[:, 0].mT

    def decode(self, codes: Tensor) -> Tensor:
        return self.gain * ((codes.mT.flatten(1)[:, None] - 32768) / 32767).float()


def voice(seconds: float, seed: int = 0, rate: int = 16000) -> Tensor:
    """Harmonics that come and go like syllables, with a little noise: ``(1, N)``."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    pitch = np.cumsum(120 + 30 * np.sin(2 * np.pi * 0.7 * t)) / rate
    wave = sum(np.sin(2 * np.pi * k * pitch) / k for k in range(1, 20))
    loudness = 0.55 + 0.45 * np.sin(2 * np.pi * 4 * t)
    wave = 0.1 * wave * loudness + 0.002 * rng.standard_normal(len(t))
    return torch.from_numpy(wave.astype(np.float32))[None]


def test_a_codec_without_loss(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pystoi")
    model = SixteenBits().train()
    clips = [ValidationClip("a", voice(1.0)), ValidationClip("b", voice(0.5001, seed=1))]
    result = validate(model, clips)
    for number, clip in enumerate(clips):
        torch.testing.assert_close(result.samples(number), clip.audio[0], atol=2e-5, rtol=0)
    assert [clip.name for clip in result.clips] == ["a", "b"]
    assert result.values["mel_db"] < 0.01
    assert result.values["si_sdr"] > 60
    assert result.values["stoi"] > 0.9999
    assert result.values["estoi"] > 0.999
    last = torch.cat([(clip.audio[0, 3::4] * 32767).round() for clip in clips])
    assert result.values["dead_codes_3"] == pytest.approx(65536 - len(last.unique()), abs=1)
    assert "".join(capsys.readouterr()) == ""


def test_means_are_means_and_half_the_level_is_6_db() -> None:
    model = SixteenBits(gain=0.5)
    noise = 0.1 * torch.randn(1, 16000, generator=torch.Generator().manual_seed(0))
    clips = [ValidationClip("noise", noise), ValidationClip("voice", voice(1.5, seed=1))]
    result = validate(model, clips)
    for name in ("mel_db", "si_sdr"):
        each = [clip.values[name] for clip in result.clips]
        assert result.values[name] == pytest.approx(sum(each) / 2)
    assert result.clips[0].values["mel_db"] == pytest.approx(20 * math.log10(2), abs=0.01)
    assert result.values["si_sdr"] > 60  # level does not matter to it


def test_real_models_are_measured_as_they_are_used(codec: Codec) -> None:
    rate = codec.sample_rate
    # shorter than SuperCodec's seven frames, no whole frames, more than a block of HAC's
    waves = [voice(seconds, seed, rate) for seed, seconds in enumerate((0.1, 0.3031, 1.2))]
    result = validate(codec.model, [ValidationClip(str(i), w) for i, w in enumerate(waves)])
    tokens = [codec.encode(wave, rate) for wave in waves]
    for number, (wave, expected) in enumerate(zip(waves, tokens, strict=True)):
        output = result.samples(number)
        assert output.shape == wave[0].shape
        np.testing.assert_array_equal(output.numpy(), codec.decode(expected)[0])
    codes = np.concatenate([t.codes[0] for t in tokens], axis=1)
    for name, value in codebook_usage(codes, codec.model.codebook_sizes).items():
        assert result.values[name] == value
    assert ("distinct" in result.values) == (codec.layout.family == "hac")
    assert all(math.isfinite(result.values[name]) for name in ("mel_db", "si_sdr"))


def test_no_clips_no_figures() -> None:
    assert validate(SixteenBits(), []).values == {}


def test_clips_too_short_for_stoi_do_not_spoil_its_mean() -> None:
    pytest.importorskip("pystoi")
    clips = [ValidationClip("long", voice(1.0)), ValidationClip("short", voice(0.2))]
    result = validate(SixteenBits(0.3), clips)
    assert math.isnan(result.clips[1].values["stoi"])
    assert result.values["stoi"] == result.clips[0].values["stoi"] > 0.99
    alone = validate(SixteenBits(), clips[1:])
    assert math.isnan(alone.values["stoi"])


def test_silence_is_understood_badly() -> None:
    pytest.importorskip("pystoi")
    wave = voice(1.0)
    noise = 0.1 * torch.randn(wave.shape, generator=torch.Generator().manual_seed(0))
    assert intelligibility(torch.zeros_like(wave), wave, 16000)["stoi"] < 0.01
    assert intelligibility(wave + noise, wave, 16000)["stoi"] < 0.95


def test_without_pystoi_the_rest_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pystoi", None)
    values = validate(SixteenBits(), [ValidationClip("a", voice(0.5))]).values
    assert {"mel_db", "si_sdr"} <= values.keys()
    assert not {"stoi", "estoi"} & values.keys()


def test_clips_are_mono_at_the_models_rate_and_not_too_long(tmp_path: Path) -> None:
    rate = 44100
    left = np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", np.stack([left, 0 * left], 1), rate, subtype="FLOAT")
    whole, cut = (
        load_clips([tmp_path / "a.wav"], 16000, seconds)[0].audio for seconds in (10.0, 0.25)
    )
    assert whole.shape == (1, 16000)
    assert whole.dtype == torch.float32
    expected = 0.5 * torch.sin(2 * math.pi * 440 * torch.arange(16000) / 16000)
    torch.testing.assert_close(whole[0, 500:-500], expected[500:-500], atol=1e-3, rtol=0)
    assert cut.shape == (1, 4000)
    torch.testing.assert_close(cut, whole[:, :4000], atol=1e-4, rtol=0)


def test_clips_that_cannot_be_used_are_told_and_left_out(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    good = [tmp_path / "a.wav", tmp_path / "b" / "a.wav"]
    for path in good:
        soundfile.write(path, np.zeros(8000), 16000)
    text, short = tmp_path / "text.wav", tmp_path / "short.wav"
    text.write_text("no audio")
    soundfile.write(short, np.zeros(1000), 16000)
    bad = [text, short, tmp_path / "none.wav"]
    told: list[str] = []
    clips = load_clips([good[0], *bad, good[1]], 16000, complain=told.append)
    assert [clip.name for clip in clips] == ["a", "a-2"]
    for path, line in zip(bad, told, strict=True):
        assert line.startswith(f"{path}: ")
        assert line.endswith("not used for validation")
    with pytest.raises(AudioError, match=r"the validation list: .*text\.wav"):
        load_clips(bad, 16000)
    with pytest.raises(AudioError, match="the validation list is empty"):
        load_clips([], 16000)
