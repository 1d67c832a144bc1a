"""Opinion scores without reference, speaker similarity, phonemes and token-rate periodicity."""

from __future__ import annotations

import importlib
import socket
import sys
import warnings
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from metric_clips import speech, with_noise

from codectool.audio.samples import resample
from codectool.evaluation.metrics.base import Metric, MetricUndefinedError, Wave
from codectool.evaluation.metrics.distillmos import DistillMos
from codectool.evaluation.metrics.dnsmos import Dnsmos
from codectool.evaluation.metrics.periodicity import TOKEN_RATES, TokenPeriodicity
from codectool.evaluation.metrics.phonemes import PhonemeErrors, edit_distance
from codectool.evaluation.metrics.plcmos import Plcmos
from codectool.evaluation.metrics.registry import unusable
from codectool.evaluation.metrics.speaker import SpeakerSimilarity, windows

RATE = 24000


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object) -> None:
        raise AssertionError("a metric used the network")

    monkeypatch.setattr(socket.socket, "connect", connect)


def load(metric: type[Metric]) -> Metric:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if problem := unusable(metric):
            pytest.skip(problem)
        return metric()


def package(name: str) -> Any:
    """Import a package, without its warnings; skip the test if it cannot be imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except (ImportError, OSError, RuntimeError) as error:
            pytest.skip(f"{name} cannot be imported: {error}")


def keep_band(wave: Wave, low: float, high: float) -> Wave:
    frequencies = np.fft.rfftfreq(len(wave), 1 / RATE)
    inside = (frequencies >= low) & (frequencies < high)
    return np.fft.irfft(np.fft.rfft(wave) * inside, len(wave)).astype(np.float32)


def with_buzz(wave: Wave, hertz: int = 75) -> Wave:
    """Replace everything above 1 kHz by pulses at a token rate, with the same envelope."""
    high = keep_band(wave, 1000, RATE)
    envelope = np.sqrt(np.convolve(high**2, np.full(320, 1 / 320), "same"))
    pulses = np.zeros(len(wave))
    pulses[:: RATE // hertz] = 1
    buzz = keep_band(pulses.astype(np.float32), 1000, RATE)
    return (wave - high + envelope * buzz / np.sqrt(np.mean(buzz**2))).astype(np.float32)


DEGRADED: dict[str, Callable[[Wave], Wave]] = {
    "low-passed": lambda wave: keep_band(wave, 0, 2000),
    "noisy": lambda wave: with_noise(wave, 20),
    "robotic": with_buzz,
}


@pytest.mark.parametrize("name", DEGRADED)
@pytest.mark.parametrize("metric", [DistillMos, Dnsmos, Plcmos, SpeakerSimilarity, PhonemeErrors])
def test_original_is_better_than_degraded_speech(metric: type[Metric], name: str) -> None:
    measure = load(metric)
    original = speech(RATE, "flite")
    before, after = (
        resample(wave[None], RATE, measure.rate)[0] for wave in (original, DEGRADED[name](original))
    )
    best, worse = measure.compute(before, before), measure.compute(before, after)
    for info in metric.outputs:
        if info.name in ("dnsmos_sig", "dnsmos_bak"):  # each hears only one of the faults
            continue
        sign = 1 if info.better == "higher" else -1
        assert sign * worse[info.name] < sign * best[info.name] - 0.1, info.name


def test_dnsmos_background_hears_noise_and_not_the_voice() -> None:
    measure, wave = load(Dnsmos), speech(16000, "flite")
    scores = [measure.compute(wave, other)["dnsmos_bak"] for other in (wave, with_noise(wave, 20))]
    assert scores[0] > scores[1] + 1


@pytest.mark.parametrize("metric", [DistillMos, Dnsmos, Plcmos])
def test_opinion_scores_depend_only_on_the_degraded_signal(metric: type[Metric]) -> None:
    measure, wave = load(metric), speech(16000)
    assert measure.compute(wave, wave) == metric().compute(with_noise(wave, 0), wave)


@pytest.mark.parametrize("seconds", [3, 7.68, 9])
def test_distillmos_matches_the_package(seconds: float, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    measure = load(DistillMos)
    assert capsys.readouterr().out == ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = package("distillmos").ConvTransformerSQAModel().eval()
    wave = np.resize(speech(16000), round(seconds * 16000))
    with torch.inference_mode():
        expected = float(model(torch.from_numpy(wave)[None]))
    assert measure.compute(wave, wave)["distillmos"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("seconds", [5, 18])
def test_dnsmos_matches_the_package(seconds: float) -> None:
    measure, module = load(Dnsmos), package("speechmos.dnsmos")
    wave = np.resize(speech(16000), round(seconds * 16000))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = module.run(wave, 16000)
    for key, value in measure.compute(wave, wave).items():
        name = key.removeprefix("dnsmos_") + "_mos"
        assert value == pytest.approx(float(expected[name]), abs=1e-3), name


def test_plcmos_features_match_the_package() -> None:
    load(Plcmos)
    module = package("speechmos.plcmos")
    from codectool.evaluation.metrics.plcmos import _log_power

    for length in (1, 255, 256, 257, 16000):
        wave = np.pad(speech(16000)[8000:], (300, 0))[:length]
        if not wave.any():
            wave = wave + np.float32(0.1)
        expected = module.PLCMOS.stft_transform(module.PLCMOS(), wave)
        np.testing.assert_allclose(_log_power(wave), expected, atol=1e-5)
    silence = np.zeros(1000, np.float32)
    expected = module.PLCMOS.stft_transform(module.PLCMOS(), silence)
    np.testing.assert_allclose(_log_power(silence), expected, atol=1e-5)


def test_plcmos_of_a_long_clip_is_the_mean_of_its_parts() -> None:
    measure, wave = load(Plcmos), np.resize(speech(16000), 40 * 16000)
    wave[:320000] = 0
    wave[0] = 1e-3
    parts = [measure.compute(part, part)["plcmos"] for part in (wave[:320000], wave[320000:])]
    assert measure.compute(wave, wave)["plcmos"] == pytest.approx(np.mean(parts), abs=1e-5)


def test_speaker_similarity_matches_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedding of the package, whose detector of pauses is not used."""
    measure = load(SpeakerSimilarity)
    assert isinstance(measure, SpeakerSimilarity)
    stub = ModuleType("pkg_resources")
    stub.get_distribution = lambda _: SimpleNamespace(version="0")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pkg_resources", stub)
    encoder = package("resemblyzer").VoiceEncoder("cpu", verbose=False)
    for seconds in (0.5, 1.6, 3, 8.3):
        wave = np.resize(speech(16000, "flite"), round(seconds * 16000))
        level = np.sqrt(np.mean(wave**2))
        louder = wave * max(1, 10 ** (-30 / 20) / level)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = encoder.embed_utterance(louder)
        np.testing.assert_allclose(measure.embed(windows(wave)), expected, atol=1e-5)


def test_speaker_similarity_tells_voices_apart() -> None:
    measure = load(SpeakerSimilarity)
    first, second = speech(16000), speech(16000, "flite")
    length = min(len(first), len(second))
    assert measure.compute(first[:length], second[:length])["speaker"] < 0.7
    half = length // 2
    assert measure.compute(first[:half], first[half : 2 * half])["speaker"] > 0.8


@pytest.mark.parametrize("hertz", TOKEN_RATES)
def test_token_periodicity_finds_a_buzz_at_each_token_rate(hertz: int) -> None:
    wave = speech(RATE)
    value = TokenPeriodicity().compute(wave, with_buzz(wave, hertz))["buzz"]
    assert 0.5 < value < 2


@pytest.mark.parametrize("name", ["low-passed", "noisy"])
def test_token_periodicity_ignores_other_faults(name: str) -> None:
    for voice in ("espeak", "flite"):
        wave = speech(RATE, voice)
        assert TokenPeriodicity().compute(wave, DEGRADED[name](wave))["buzz"] < 0.05


def test_token_periodicity_subtracts_a_pitch_at_the_token_rate() -> None:
    pulses = np.zeros(RATE, np.float32)
    pulses[:: RATE // 75] = 0.5
    wave = keep_band(pulses, 100, 8000)
    measure = TokenPeriodicity()
    assert measure.compute(wave, 0.5 * wave)["buzz"] == pytest.approx(0, abs=1e-6)
    with pytest.raises(MetricUndefinedError, match="shorter than 0.5 s"):
        measure.compute(wave[:1000], wave[:1000])


def test_phonemes_of_a_known_sentence() -> None:
    measure = load(PhonemeErrors)
    assert isinstance(measure, PhonemeErrors)
    wave = speech(16000, "flite")
    found = measure.recognise(wave)
    assert " ".join(found).startswith("DH IH K UH K B R AW N F AA K S JH AE N P S OW V ER DH")
    assert measure.recognise(speech(16000)) != found
    assert measure.recognise(wave) == found, "no state is kept"
    assert len(measure.recognise(np.zeros(16000, np.float32))) < 3
    with pytest.raises(MetricUndefinedError, match="fewer than 5 phonemes"):
        measure.compute(*[with_noise(np.full(16000, 0.01, np.float32), 60)] * 2)


@pytest.mark.parametrize(
    ("first", "second", "distance"),
    [("", "", 0), ("abc", "", 3), ("", "ab", 2), ("kitten", "sitting", 3), ("abc", "abc", 0)],
)
def test_edit_distance(first: str, second: str, distance: int) -> None:
    assert edit_distance(first, second) == distance
