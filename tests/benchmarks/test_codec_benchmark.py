"""Benchmarks of the codecs: all forms give the same tokens, and all parts run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import codecs as benchmark
from benchmarks.codecs import TokenComparison, operator_kind
from benchmarks.reference_models import ReferenceBigCodec, ReferenceModel, ReferenceSuperCodec
from benchmarks.systems import (
    OperationCounter,
    SystemUnderTest,
    batches,
    find_speech,
    open_system,
    short_clips,
)
from benchmarks.timing import InterleavedTimer
from codectool.checkpoints.published import canonical_name
from codectool.codecs.bigcodec.model import BigCodec
from codectool.codecs.supercodec.model import SuperCodec
from tests.conftest import GOLDEN
from tests.full_size_weights import BIGCODEC, SUPERCODEC

FAMILIES = ["bigcodec", "supercodec", "hac"]


@pytest.fixture(scope="module")
def systems(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SystemUnderTest]:
    folder = tmp_path_factory.mktemp("weights")
    return {family: open_system(family, None, folder, tiny=True) for family in FAMILIES}


@pytest.fixture(params=FAMILIES)
def system(request: pytest.FixtureRequest, systems: dict[str, SystemUnderTest]) -> SystemUnderTest:
    return systems[request.param]


def reference_of(system: SystemUnderTest) -> ReferenceModel:
    assert system.reference is not None
    return system.reference


def noise(system: SystemUnderTest, frames: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    return 0.3 * torch.randn(1, 1, frames * system.codec.hop_length, generator=random)


@pytest.mark.parametrize("family", ["bigcodec", "supercodec"])
def test_reference_model_gives_the_golden_tokens(
    family: str, systems: dict[str, SystemUnderTest]
) -> None:
    system = systems[family]
    hop = system.codec.hop_length
    with np.load(GOLDEN / f"{family}_micro.npz") as golden:
        for name in golden["names"]:
            expected = torch.from_numpy(golden[f"{name}/codes"]).long()[None]
            wave = torch.zeros(1, 1, expected.shape[-1] * hop)
            given = torch.from_numpy(golden[f"{name}/wav"])[: wave.shape[-1]]
            wave[0, 0, : len(given)] = given
            assert torch.equal(reference_of(system).encode(wave), expected), name
            audio = reference_of(system).decode(expected)[0, 0]
            torch.testing.assert_close(
                audio, torch.from_numpy(golden[f"{name}/rec_from_codes"]), atol=1e-5, rtol=0
            )


def test_all_forms_give_the_same_tokens_and_audio(system: SystemUnderTest) -> None:
    wave = noise(system, 50)
    with torch.inference_mode():
        forms = system.forms()
        assert forms.keys() == {"codectool", "plain", "reference"}
        codes = forms["codectool"][0](wave)
        audio = forms["codectool"][1](codes)
        assert len(codes.unique()) > 10
        for name in ("plain", "reference"):
            encode, decode = forms[name]
            assert torch.equal(encode(wave), codes), name
            other = decode(codes)
            torch.testing.assert_close(audio, other, atol=1e-5 * float(other.abs().max()), rtol=0)
    assert system.codec.model.cpu_fast_path


def test_token_comparison_tells_ties_from_errors(system: SystemUnderTest) -> None:
    wave = noise(system, 50)
    codes = reference_of(system).encode(wave)
    wrong = codes.clone()
    wrong[0, 0, 3] ^= 1
    comparison = TokenComparison(system)
    comparison.add(wave, codes, codes)
    assert comparison.row()["ties"] is True
    comparison.add(wave, wrong, codes)
    row = comparison.row()
    assert (row["tokens"], row["differing"], row["ties"]) == (2 * codes.numel(), 1, False)
    assert row["largest_gap"] > 1e-3


def test_gaps_count_only_the_first_differing_stage(systems: dict[str, SystemUnderTest]) -> None:
    system = systems["supercodec"]
    model = reference_of(system)
    wave = noise(system, 50)
    codes = model.encode(wave)
    first, both = codes.clone(), codes.clone()
    first[0, 0, 3] ^= 1
    both[0, :, 3] ^= 1
    gaps = [model.gaps(model.latent(wave), other, codes) for other in (first, both)]
    assert torch.equal(gaps[0], gaps[1])
    assert gaps[0].count_nonzero() == 1


@pytest.mark.parametrize(
    ("family", "reference", "encoding", "decoding"),
    # multiplications per second in G; BigCodec's without the filters of its activations
    [
        ("bigcodec", ReferenceBigCodec, 26.06 - 0.57, 26.57 - 0.57),
        ("supercodec", ReferenceSuperCodec, 1.77, 1.80),
    ],
)
def test_operation_counter_gives_the_published_counts(
    family: str, reference: type[ReferenceModel], encoding: float, decoding: float
) -> None:
    """On the meta device nothing is computed."""
    with torch.device("meta"):
        built = BigCodec(BIGCODEC) if family == "bigcodec" else SuperCodec(SUPERCODEC)
        state = {canonical_name(family, name): x for name, x in built.state_dict().items()}
        model = reference(state)
        wave = torch.zeros(1, 1, built.sample_rate)
        encoded = OperationCounter(model, model.encode, wave)
        decoded = OperationCounter(model, model.decode, encoded.output)
    assert encoded.operations / 2e9 == pytest.approx(encoding, rel=0.003)
    assert decoded.operations / 2e9 == pytest.approx(decoding, rel=0.003)


def test_operations_are_per_second_of_audio(system: SystemUnderTest) -> None:
    operations = system.operations()
    assert operations.keys() == {"encode", "decode"}
    weights = sum(p.numel() for p in system.codec.model.parameters())
    for count in operations.values():
        # every weight acts at least once per frame, except outer taps of gates and codewords
        assert 0.1 * weights * system.codec.frame_rate < count
        assert count < 2 * weights * system.codec.sample_rate


def test_short_clips_cover_the_speech(systems: dict[str, SystemUnderTest]) -> None:
    codec = systems["hac"].codec
    lengths = [0.2, 0.6, 0.5, 0.3, 0.4, 0.25, 0.55]
    wave = np.arange(5 * codec.sample_rate, dtype=np.float32) / codec.sample_rate / 8
    clips = short_clips(codec, wave, lengths)
    joined = np.concatenate([clip.samples[0] for clip in clips])
    assert len(joined) >= round(sum(lengths) * codec.sample_rate)
    np.testing.assert_array_equal(clips[0].samples[0][:4800], wave[:4800])
    groups = batches(clips, 1.0)
    assert sum(map(len, groups)) == 7
    assert all(len(part) == 1 or sum(clip.seconds for clip in part) <= 1.0 for part in groups)


def test_timer_row_gives_ratios_of_least_times() -> None:
    timer = InterleavedTimer()
    timer.seconds = {"codectool": [1.0, 2.0, 1.5], "reference": [4.0, 3.0, 6.0]}
    row = timer.row(2.0)
    assert row["rtf"] == {"codectool": 0.5, "reference": 1.5}
    assert row["ratios"] == {"reference": [3.0, 1.5, 4.0]}
    assert timer.row(2.0, parts=True)["ratios"]["reference"][0] == pytest.approx(13 / 4.5)


def test_timer_rotates_the_order() -> None:
    order: list[str] = []
    timer = InterleavedTimer()
    for _ in range(2):
        timer.run({name: lambda name=name: order.append(name) for name in ("codectool", "plain")})
    assert order == ["codectool", "plain", "plain", "codectool"]


def test_find_speech_reads_folders_and_lists(tmp_path: Path) -> None:
    for name in ("b.wav", "a.flac", "notes.md"):
        (tmp_path / name).touch()
    (tmp_path / "some.txt").write_text("b.wav\n")
    assert find_speech(tmp_path) == [tmp_path / "a.flac", tmp_path / "b.wav"]
    assert find_speech(tmp_path / "some.txt") == [tmp_path / "b.wav"]


@pytest.mark.parametrize(
    ("operator", "shapes", "expected"),
    [
        ("aten::mkldnn_convolution", [[1, 48, 900], [96, 48, 4]], "convolutions"),
        ("aten::mkldnn_convolution", [[1, 48, 900], [48, 1, 12]], "filters"),
        ("aten::mkldnn_convolution", [[1, 1, 900], [48, 1, 7]], "convolutions"),
        ("aten::mkldnn_rnn_layer", [[80, 1, 1536], [6144, 1536]], "LSTM"),
        ("aten::addmm_", [[8], [80, 1024], [1024, 8]], "products"),
        ("aten::sin_", [[1, 48, 900]], "sine"),
        ("aten::cat", [[], []], "other operators"),
    ],
)
def test_operator_kind(operator: str, shapes: list[list[int]], expected: str) -> None:
    assert operator_kind(operator, shapes) == expected


def test_quick_run_measures_all_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "QUICK", replace(benchmark.QUICK, runs=0))
    monkeypatch.setattr(benchmark.os, "cpu_count", lambda: 1)
    file = tmp_path / "bench.json"
    parts = ["one_file", "short_files", "profile", "streams", "packing", "sizes"]
    benchmark.main(["--quick", "--json", str(file), "--only", *parts])
    printed = capsys.readouterr().out
    results = json.loads(file.read_text())
    assert results["models"].keys() == set(FAMILIES)
    for model in results["models"].values():
        assert model.keys() == {"name", "threads", *parts}
        row = model["one_file"]["1"]
        assert row["encode"]["share"] > 0
        assert row["encode"]["rtf"].keys() == {"codectool", "plain", "reference"}
        assert all(found["differing"] == 0 for found in row["tokens"].values())
        for shares in model["profile"].values():
            assert sum(shares["encode"].values()) == pytest.approx(1)
        assert model["short_files"]["clips"] == benchmark.QUICK.clips
        assert model["short_files"]["tokens"]["differing"] == 0
    benchmark.main(["--markdown", str(file)])
    assert capsys.readouterr().out == printed
    assert "| supercodec (tiny) | encode" in printed


def test_parity_compares_all_forms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, listed = tmp_path / "bench.json", tmp_path / "list.txt"
    assets = Path(benchmark.__file__).parents[1] / "assets"
    listed.write_text(f"{assets / 'speech_flite.flac'}\n")
    options = ["--quick", "--model", "supercodec", "--parity", "3"]
    benchmark.main([*options, "--files", str(listed), "--json", str(file)])
    found = json.loads(file.read_text())["models"]["supercodec"]["parity"]
    assert found["clips"] == 3
    for form in ("batch", "stream", "plain", "reference"):
        assert found[form]["tokens"] > 0
        assert found[form]["differing"] == 0
    assert "3 clips: stream" in capsys.readouterr().out


def test_start_and_memory_run_commands(systems: dict[str, SystemUnderTest], tmp_path: Path) -> None:
    size = replace(benchmark.QUICK, runs=0, memory_seconds=(0.5,))
    runner = benchmark.Benchmark(size, benchmark.BUNDLED_SPEECH, tmp_path)
    rows = runner.memory(systems["supercodec"])
    assert [row["audio"] for row in rows] == ["0.5 s", "4 files"]
    assert all(1e7 < row[name]["bytes"] < 1e10 for row in rows for name in ("encode", "decode"))
    assert len(list((tmp_path / "back").iterdir())) == 5  # and the journal
