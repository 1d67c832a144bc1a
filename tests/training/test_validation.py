"""Validation of codecs of known quality."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from codectool.codec import Codec
from codectool.codecs.base import CodecModel, Stream
from codectool.codecs.properties import Context, Latency
from codectool.codecs.segments import segment_decoder, segment_encoder
from codectool.errors import AudioError
from codectool.evaluation.metrics.spectral import mel_distance
from codectool.evaluation.tokens.usage import codebook_usage
from codectool.training.validation import ValidationClip, compute_metrics, load_clips, validate


class SixteenBits(CodecModel):
    """Four samples per frame, each a token of 16 bits."""

    family = "sixteen"
    sample_rate = 16000
    hop_length = 4
    codebook_sizes = (65536,) * 4
    latent_channels = 4
    decode_context = Context(0, 0)
    latency = Latency(0, 0)

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(gain))

    @classmethod
    def from_state(cls, state: Any, config: Any = None) -> SixteenBits:
        raise NotImplementedError

    def stream_encoder(
        self, chunk_frames: int | None = None, *, latents: bool = False
    ) -> Stream[Any]:
        return segment_encoder(self, chunk_frames or 100, latents)

    def latents(self, waves: Sequence[Tensor]) -> list[Tensor]:
        raise NotImplementedError

    def quantize(self, latent: Tensor) -> Tensor:
        raise NotImplementedError

    def dequantize(self, codes: Tensor) -> Tensor:
        raise NotImplementedError

    def stream_decoder(self, chunk_frames: int | None = None) -> Stream[Any]:
        return segment_decoder(self, chunk_frames or 100)

    def reference_frames(self, num_samples: int) -> int:
        return num_samples // 4

    def encode(self, waves: Sequence[Tensor]) -> list[Tensor]:
        assert not self.training
        assert not torch.is_grad_enabled()
        return [((w * 32767).round().long() + 32768).unflatten(-1, (-1, 4))[0].mT for w in waves]

    def decode(self, codes: Sequence[Tensor]) -> list[Tensor]:
        return [self.gain * ((c.mT.flatten()[None] - 32768) / 32767).float() for c in codes]


def voice(seconds: float, seed: int = 0, rate: int = 16000) -> Tensor:
    """Harmonics with a syllabic envelope, and a little noise: ``(1, N)``."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    pitch = np.cumsum(120 + 30 * np.sin(2 * np.pi * 0.7 * t)) / rate
    wave = sum(np.sin(2 * np.pi * k * pitch) / k for k in range(1, 20))
    loudness = 0.55 + 0.45 * np.sin(2 * np.pi * 4 * t)
    wave = 0.1 * wave * loudness + 0.002 * rng.standard_normal(len(t))
    return torch.from_numpy(wave.astype(np.float32))[None]


def test_lossless_codec_has_perfect_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pystoi")
    model = SixteenBits().train()
    clips = [ValidationClip("a", voice(1.0)), ValidationClip("b", voice(0.5001, seed=1))]
    result = validate(model, clips)
    for number, clip in enumerate(clips):
        torch.testing.assert_close(result.outputs[number], clip.audio[0], atol=2e-5, rtol=0)
    assert result.values["mel_db"] < 0.01
    assert result.values["si_sdr_db"] > 60
    assert result.values["stoi"] > 0.9999
    assert result.values["estoi"] > 0.999
    last = torch.cat([(clip.audio[0, 3::4] * 32767).round() for clip in clips])
    assert result.values["dead_codes_3"] == pytest.approx(65536 - len(last.unique()), abs=1)
    assert "".join(capsys.readouterr()) == ""


def test_values_are_means_over_clips() -> None:
    model = SixteenBits(gain=0.5)
    noise = 0.1 * torch.randn(1, 16000, generator=torch.Generator().manual_seed(0))
    clips = [ValidationClip("noise", noise), ValidationClip("voice", voice(1.5, seed=1))]
    result = validate(model, clips)
    for name in ("mel_db", "si_sdr_db"):
        each = [values[name] for values in result.clip_values]
        assert result.values[name] == pytest.approx(sum(each) / 2)
    assert result.clip_values[0]["mel_db"] == pytest.approx(20 * math.log10(2), abs=0.01)
    assert result.values["si_sdr_db"] > 60  # it does not depend on level


def test_outputs_and_usage_match_codec(codec: Codec) -> None:
    rate = codec.sample_rate
    # shorter than SuperCodec's minimum, a fraction of a frame, more than a chunk of HAC
    waves = [voice(seconds, seed, rate) for seed, seconds in enumerate((0.1, 0.3031, 1.2))]
    result = validate(codec.model, [ValidationClip(str(i), w) for i, w in enumerate(waves)])
    tokens = [codec.encode(wave, rate) for wave in waves]
    for number, (wave, expected) in enumerate(zip(waves, tokens, strict=True)):
        output = result.outputs[number]
        assert output.shape == wave[0].shape
        np.testing.assert_array_equal(output.numpy(), codec.decode(expected)[0])
    codes = np.concatenate([t.codes[0] for t in tokens], axis=1)
    for name, value in codebook_usage(codes, codec.model.codebook_sizes).items():
        assert result.values[name] == value
    assert ("distinct" in result.values) == (codec.layout.family == "hac")
    assert all(math.isfinite(result.values[name]) for name in ("mel_db", "si_sdr_db"))


def test_no_clips_give_no_values() -> None:
    assert validate(SixteenBits(), []).values == {}


def test_clips_too_short_for_stoi_are_not_in_its_mean() -> None:
    pytest.importorskip("pystoi")
    clips = [ValidationClip("long", voice(1.0)), ValidationClip("short", voice(0.2))]
    result = validate(SixteenBits(0.3), clips)
    assert math.isnan(result.clip_values[1]["stoi"])
    assert result.values["stoi"] == result.clip_values[0]["stoi"] > 0.99
    alone = validate(SixteenBits(), clips[1:])
    assert math.isnan(alone.values["stoi"])


def test_clips_without_speech_are_only_in_the_mean_of_the_mel_distance() -> None:
    dither = torch.from_numpy(np.random.default_rng(0).integers(-1, 2, (1, 16000)) / 32768).float()
    clips = [ValidationClip("voice", voice(1.0)), ValidationClip("dither", dither)]
    result = validate(SixteenBits(0.5), clips)
    for name in result.clip_values[1].keys() - {"mel_db"}:
        assert math.isnan(result.clip_values[1][name])
        assert result.values[name] == result.clip_values[0][name]
    assert math.isfinite(result.clip_values[1]["mel_db"])


def test_stoi_of_silence_and_noise_is_low() -> None:
    pytest.importorskip("pystoi")
    wave = voice(1.0)[0].numpy()
    noise = np.random.default_rng(0).normal(0, 0.1, wave.shape).astype(np.float32)
    assert compute_metrics(wave, np.zeros_like(wave), 16000)["stoi"] < 0.01
    assert compute_metrics(wave, wave + noise, 16000)["stoi"] < 0.95


def test_si_sdr_of_silence_is_undefined() -> None:
    wave, silence = voice(1.0)[0].numpy(), np.zeros(16000, np.float32)
    for pair in ((wave, silence), (silence, wave), (silence, silence)):
        assert math.isnan(compute_metrics(*pair, 16000)["si_sdr_db"])
    assert compute_metrics(silence, silence, 16000)["mel_db"] == 0


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 48000])
def test_half_level_is_6_decibels_at_every_rate(rate: int) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, rate // 4).astype(np.float32)
    value = compute_metrics(noise, noise / 4, rate)["mel_db"]
    assert value == pytest.approx(12.0412, rel=1e-4)
    assert 0 < mel_distance(noise[:100], noise[:100] / 4, rate) < 13


def test_other_metrics_do_not_need_pystoi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pystoi", None)
    values = validate(SixteenBits(), [ValidationClip("a", voice(0.5))]).values
    assert {"mel_db", "si_sdr_db"} <= values.keys()
    assert not {"stoi", "estoi"} & values.keys()


def test_clips_are_mono_at_the_models_rate_and_cut(tmp_path: Path) -> None:
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


def test_unusable_clips_are_reported_and_left_out(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    good = [tmp_path / "a.wav", tmp_path / "b" / "a.wav"]
    for path in good:
        soundfile.write(path, np.zeros(8000), 16000)
    text, short = tmp_path / "text.wav", tmp_path / "short.wav"
    text.write_text("no audio")
    soundfile.write(short, np.zeros(1000), 16000)
    bad = [text, short, tmp_path / "none.wav"]
    errors: list[str] = []
    clips = load_clips([good[0], *bad, good[1]], 16000, on_error=errors.append)
    assert [clip.name for clip in clips] == ["a", "a-2"]
    for path, line in zip(bad, errors, strict=True):
        assert line.startswith(f"{path}: ")
        assert line.endswith("not used for validation")
    with pytest.raises(AudioError, match="the validation list: no clip of it can be used"):
        load_clips(bad, 16000)
    with pytest.raises(AudioError, match="the validation list: is empty"):
        load_clips([], 16000)
