"""The figures of the model cards are worth what the benchmark that makes them is worth."""

from __future__ import annotations

import json
import math
import shutil
import sys
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import torchaudio

from benchmarks import measures, picture, quality, systems
from codectool.audio.sink import audio_bytes
from codectool.errors import UsageError
from codectool.training.losses.spectral import mel_distance_db

RATE = measures.RATE


def noise(samples: int, seed: int = 0, level: float = 0.1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, level, samples).astype(np.float32)


def sine(hertz: float, samples: int, level: float = 1.0) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hertz * np.arange(samples) / RATE)).astype(np.float32)


# ---- Mel distance ---------------------------------------------------------------------------


@pytest.mark.parametrize(("window", "bands"), measures.SCALES)
def test_bands_are_slaneys(window: int, bands: int) -> None:
    theirs = torchaudio.functional.melscale_fbanks(
        window // 2 + 1, 0.0, 12000.0, bands, RATE, norm=None, mel_scale="slaney"
    ).numpy()
    np.testing.assert_allclose(
        measures.mel_bands(window, bands), (theirs / theirs.sum(0)).T, atol=1e-5
    )


def test_a_sine_at_full_scale_has_magnitude_one() -> None:
    # 43 bins of 24000/1024 Hz; a Hann window spreads it as 1/2, 1, 1/2.
    level = measures.log_mel(sine(43 * RATE / 1024, 5 * 1024), 1024, 80)
    seen = measures.mel_bands(1024, 80)[:, 42:45] @ [0.5, 1, 0.5]
    np.testing.assert_allclose(level[2], 20 * np.log10(np.maximum(seen, 1e-4)), atol=1e-3)


def test_half_the_level_is_six_decibels_where_nothing_is_below_the_floor() -> None:
    wave = noise(RATE)
    assert measures.mel_distance(wave, wave / 2) == pytest.approx(20 * math.log10(2), abs=1e-3)
    assert measures.mel_distance(wave, wave) == 0
    assert measures.mel_distance(wave * 1e-7, wave * 1e-8) == 0


def test_distance_is_that_of_validation() -> None:
    before, after = noise(RATE), noise(RATE, seed=1) * np.linspace(0, 2, RATE, dtype=np.float32)
    theirs = mel_distance_db(
        torch.from_numpy(after)[None, None], torch.from_numpy(before)[None, None], RATE
    )
    assert measures.mel_distance(before, after) == pytest.approx(float(theirs), abs=2e-3)


# ---- Other measures -------------------------------------------------------------------------


def test_si_sdr_of_a_tone_with_another_tone() -> None:
    wave, other = sine(1000, RATE, 0.5), sine(2000, RATE, 0.05)
    for scale in (1.0, -3.0, 0.01):
        found = measures.si_sdr(wave, scale * (wave + other) + 0.2)
        assert found == pytest.approx(20, abs=0.01)
    assert measures.si_sdr(np.zeros(10), wave[:10]) is None


def test_entropy_of_bits() -> None:
    codes = np.array([0b00, 0b01, 0b11, 0b11])
    quarter = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    assert measures.bit_entropies(codes, 3) == pytest.approx([0, 1, quarter])
    assert measures.distinct_share(codes) == 0.75


@pytest.mark.parametrize("name", ["pesq", "pystoi"])
def test_missing_packages_are_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pesq", sys)  # whichever this machine has
    monkeypatch.setitem(sys.modules, "pystoi", sys)
    measures.check_scorers()
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=f"package `{name}` is missing; `pip install pesq"):
        measures.check_scorers()


def test_clips_that_cannot_be_judged() -> None:
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    short = noise(1600)
    assert measures.stoi(short, short, extended=False) is None
    assert measures.pesq_wb(short, short) is None
    long = noise(RATE) * np.sin(np.arange(RATE) / 1500).astype(np.float32) ** 2
    assert measures.score(long, long)["stoi"] == pytest.approx(1, abs=1e-6)
    found = measures.score(long, long)["pesq_wb"]
    assert found is not None
    assert found > 4.6


# ---- Delay ----------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [0, 37, -250, 480])
def test_delay_of_a_waveform(delay: int) -> None:
    clips = [noise(RATE, seed) * sine(3, RATE) for seed in (1, 2)]
    late = [measures.advance(clip, -delay, RATE + 500) for clip in clips]
    assert measures.find_delay(list(zip(clips, late, strict=True))) == delay
    back = measures.advance(late[0], delay, RATE)
    kept = slice(max(0, -delay), RATE)
    np.testing.assert_array_equal(back[kept], clips[0][kept])


def test_delay_where_only_the_envelope_is_kept() -> None:
    pairs = []
    for seed in (1, 2):
        bursts = np.repeat(np.random.default_rng(seed).random(40) > 0.5, RATE // 40)
        before, after = (noise(RATE, seed + key) * bursts for key in (10, 20))
        pairs.append((before, measures.advance(after, -480, RATE)))
    assert measures.find_delay(pairs) == pytest.approx(480, abs=measures.STEP)


# ---- Systems --------------------------------------------------------------------------------


def ogg_page(segments: list[int]) -> bytes:
    return b"OggS" + bytes(22) + bytes([len(segments), *segments]) + bytes(sum(segments))


def test_packets_of_an_ogg_file() -> None:
    # 255 goes on, also over pages; a packet of 510 bytes ends with an empty segment.
    file = ogg_page([19]) + ogg_page([7, 255, 255]) + ogg_page([45, 255, 255, 0])
    assert systems.ogg_packet_sizes(file) == [19, 7, 555, 510]


@pytest.mark.parametrize(
    ("name", "kbps", "longest_delay"), [("codec2@1300", 1.3, 30), ("opus@12", 12, 1)]
)
def test_programs(name: str, kbps: float, longest_delay: float) -> None:
    if not shutil.which("c2enc" if name.startswith("codec2") else "opusenc"):
        pytest.skip("its program is not here")
    clip = systems.to_16_bits(noise(3 * RATE) * sine(3, 3 * RATE))
    coded = systems.open_system(name).code(clip)
    assert coded.payload_bits / 3000 == pytest.approx(kbps, rel=0.2)
    assert coded.payload_bits <= 8 * coded.file_bytes
    assert len(coded.wave) >= len(clip)
    delay = 1000 * measures.find_delay([(clip, coded.wave)]) / RATE
    assert 0 <= delay <= longest_delay


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("codec2@99", "write codec2@MODE, of 3200"),
        ("opus@1", "from 6 to 256"),
        ("opus", "write opus@KBPS"),
    ],
)
def test_wrong_names(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        systems.open_system(name)


def test_names_of_systems() -> None:
    named = quality.name_systems(["a/x.safetensors", "mine=b/x.safetensors"], ["opus@6"])
    assert named == {"x": "a/x.safetensors", "mine": "b/x.safetensors", "opus@6": "opus@6"}
    with pytest.raises(UsageError, match="one name"):
        quality.name_systems(["a/x.pt", "b/x.pt"], [])
    with pytest.raises(UsageError, match="nothing to measure"):
        quality.name_systems([], [])


# ---- All of it ------------------------------------------------------------------------------


def test_a_codec_of_ours_from_list_to_table(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = {"pesq_wb": None, "stoi": 0.5, "estoi": 0.25, "mel_db": 3.0, "si_sdr_db": -1.0}
    monkeypatch.setattr(quality, "score", lambda before, after: dict(scores))
    for name, rate in (("a", 16000), ("b", 24000), ("c", 48000)):
        wave = noise(rate)[None]
        (tmp_path / f"{name}.wav").write_bytes(audio_bytes(np.concatenate([wave, wave]), rate))
    (tmp_path / "list.txt").write_text("# clips\n\na.wav\nb.wav\t24000\t24000\nc.wav\n")
    clips = quality.read_list(tmp_path / "list.txt")
    assert [len(clip.wave) for clip in clips] == [RATE] * 3
    with ThreadPoolExecutor(2) as pool:
        result = quality.measure(str(checkpoints["hac"]), clips, pool, 2)
    assert [row["clip"] for row in result.rows] == ["a.wav", "b.wav", "c.wav"]
    found = result.summary
    assert (found["clips"], found["frames"], found["kbps"]) == (3, 225, 1.35)
    assert 1.35 < found["kbps_file"] < 1.6
    assert len(found["bit_entropies"]) == 18
    assert found["estoi"] == {"clips": 3, "mean": 0.25, "worst": 0.25, "worst_clip": "a.wav"}
    assert found["pesq_wb"] == {"clips": 0}
    heads, cells = quality.table({"hac": result})
    assert len(heads) == len(cells)
    assert cells[:5] == ["hac", "1.35", f"{found['kbps_file']:.2f}", "-", "0.500 (0.500)"]
    json.dumps(found, allow_nan=False)


def test_unknown_clip_and_empty_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoints: dict[str, Path]
) -> None:
    monkeypatch.setattr(quality, "check_scorers", lambda: None)
    listed = tmp_path / "list.txt"
    options = Namespace(checkpoint=[str(checkpoints["hac"])], codec=[], files=listed, clip="zebra")
    with pytest.raises(UsageError, match=r"list\.txt: No such file or directory; --files takes"):
        quality.run(options)
    listed.write_text("# nothing\n")
    with pytest.raises(UsageError, match=r"list\.txt: names no clip"):
        quality.run(options)
    (tmp_path / "a.wav").write_bytes(audio_bytes(noise(2400)[None], RATE))
    listed.write_text("a.wav\n")
    with pytest.raises(UsageError, match="--clip zebra: no clip"):
        quality.run(options)


def test_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "x.png"
    picture.draw(path, "clip", {"original": noise(RATE), "coded": sine(1000, RATE)})
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    assert (width, height) == (1100, 506)
