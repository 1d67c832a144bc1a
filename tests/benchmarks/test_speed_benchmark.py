"""The upstream way is worth comparing with because it gives the tokens that ours gives."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import speed
from benchmarks.speed_models import (
    Contender,
    Counted,
    batches,
    clip_lengths,
    cut,
    open_contender,
)
from benchmarks.speed_pairs import Comparison
from benchmarks.speed_profile import kind
from benchmarks.speed_timing import Turns
from benchmarks.upstream_way import UpstreamBigCodec, UpstreamModel, UpstreamSuperCodec
from codectool.checkpoints.published import canonical_name
from codectool.codecs.bigcodec.model import BigCodec
from codectool.codecs.supercodec.model import SuperCodec
from tests.batches import decode_batch, encode_batch
from tests.conftest import GOLDEN
from tests.recipe import BIGCODEC, SUPERCODEC

FAMILIES = ["bigcodec", "supercodec", "hac"]


@pytest.fixture(scope="module")
def contenders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Contender]:
    folder = tmp_path_factory.mktemp("weights")
    return {family: open_contender(family, None, folder, tiny=True) for family in FAMILIES}


@pytest.fixture(params=FAMILIES)
def contender(request: pytest.FixtureRequest, contenders: dict[str, Contender]) -> Contender:
    return contenders[request.param]


def upstream(contender: Contender) -> UpstreamModel:
    assert contender.upstream is not None
    return contender.upstream


def noise(contender: Contender, frames: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    return 0.3 * torch.randn(1, 1, frames * contender.codec.hop_length, generator=random)


@pytest.mark.parametrize("family", ["bigcodec", "supercodec"])
def test_the_upstream_way_gives_the_published_tokens(
    family: str, contenders: dict[str, Contender]
) -> None:
    contender = contenders[family]
    hop = contender.codec.hop_length
    with np.load(GOLDEN / f"{family}_micro.npz") as golden:
        for name in golden["names"]:
            expected = torch.from_numpy(golden[f"{name}/codes"]).long()[None]
            wave = torch.zeros(1, 1, expected.shape[-1] * hop)
            given = torch.from_numpy(golden[f"{name}/wav"])[: wave.shape[-1]]
            wave[0, 0, : len(given)] = given
            assert torch.equal(upstream(contender).encode(wave), expected), name
            audio = upstream(contender).decode(expected)[0, 0]
            torch.testing.assert_close(
                audio, torch.from_numpy(golden[f"{name}/rec_from_codes"]), atol=1e-5, rtol=0
            )


def test_both_give_the_same(contender: Contender) -> None:
    wave = noise(contender, 50)
    model = contender.codec.model
    with torch.inference_mode():
        codes, audio = encode_batch(model, wave), decode_batch(model, encode_batch(model, wave))
    assert len(codes.unique()) > 10
    assert torch.equal(upstream(contender).encode(wave), codes)
    other = upstream(contender).decode(codes)
    torch.testing.assert_close(audio, other, atol=1e-5 * float(other.abs().max()), rtol=0)


def test_a_tie_is_told_from_a_mistake(contender: Contender) -> None:
    wave = noise(contender, 50)
    codes = upstream(contender).encode(wave)
    wrong = codes.clone()
    wrong[0, 0, 3] ^= 1
    comparison = Comparison(contender)
    comparison.add(wave, codes, codes)
    assert comparison.row()["ties"] is True
    comparison.add(wave, wrong, codes)
    row = comparison.row()
    assert (row["tokens"], row["differing"], row["ties"]) == (2 * codes.numel(), 1, False)
    assert row["largest_gap"] > 1e-3


def test_later_stages_do_not_count(contenders: dict[str, Contender]) -> None:
    contender = contenders["supercodec"]
    model = upstream(contender)
    wave = noise(contender, 50)
    codes = encode_batch(model, wave)
    first, both = codes.clone(), codes.clone()
    first[0, 0, 3] ^= 1
    both[0, :, 3] ^= 1
    gaps = [model.gaps(model.latent(wave), other, codes) for other in (first, both)]
    assert torch.equal(gaps[0], gaps[1])
    assert gaps[0].count_nonzero() == 1


@pytest.mark.parametrize(
    ("family", "way", "encoding", "decoding"),
    # in G, for a second; BigCodec's without the filters of its activations
    [
        ("bigcodec", UpstreamBigCodec, 26.06 - 0.57, 26.57 - 0.57),
        ("supercodec", UpstreamSuperCodec, 1.77, 1.80),
    ],
)
def test_multiplications_are_counted(
    family: str, way: type[UpstreamModel], encoding: float, decoding: float
) -> None:
    """Those of the published sizes are known; nothing is multiplied on the device `meta`."""
    with torch.device("meta"):
        built = BigCodec(BIGCODEC) if family == "bigcodec" else SuperCodec(SUPERCODEC)
        state = {canonical_name(family, name): x for name, x in built.state_dict().items()}
        model = way(state)
        wave = torch.zeros(1, 1, built.sample_rate)
        encoded = Counted(model, model.encode, wave)
        decoded = Counted(model, model.decode, encoded.made)
    assert encoded.operations / 2e9 == pytest.approx(encoding, rel=0.003)
    assert decoded.operations / 2e9 == pytest.approx(decoding, rel=0.003)


def test_operations_are_those_of_a_second(contender: Contender) -> None:
    operations = contender.operations()
    assert operations.keys() == {"encode", "decode"}
    weights = sum(p.numel() for p in contender.codec.model.parameters())
    for count in operations.values():
        # a weight acts at least once a frame, but for the outer taps of gates and the codewords
        assert 0.1 * weights * contender.codec.frame_rate < count
        assert count < 2 * weights * contender.codec.sample_rate


def test_short_clips_hold_all_of_the_speech(contenders: dict[str, Contender]) -> None:
    codec = contenders["hac"].codec
    lengths = clip_lengths(7, 0.2, 0.6)
    assert all(0.2 <= length <= 0.6 for length in lengths)
    assert lengths == clip_lengths(7, 0.2, 0.6)
    wave = np.arange(5 * codec.sample_rate, dtype=np.float32) / codec.sample_rate / 8
    clips = cut(codec, wave, lengths)
    together = np.concatenate([clip.samples[0, : clip.num_samples] for clip in clips])
    np.testing.assert_array_equal(together, wave[: len(together)])
    parts = batches(clips, 1.0)
    assert sum(map(len, parts)) == 7
    assert all(len(part) == 1 or sum(clip.seconds for clip in part) <= 1.0 for part in parts)


def test_the_ratio_is_that_of_the_least_times() -> None:
    turns = Turns([1.0, 2.0, 1.5], [4.0, 3.0, 6.0])
    row = turns.row(2.0)
    assert (row["ours"], row["upstream"], row["ratio"]) == (0.5, 1.5, 3.0)
    assert row["ratios"] == [1.5, 4.0]
    assert turns.row(2.0, together=True)["ratio"] == pytest.approx(13 / 4.5)


def test_speech_is_a_folder_or_a_list(tmp_path: Path) -> None:
    for name in ("b.wav", "a.flac", "notes.md"):
        (tmp_path / name).touch()
    (tmp_path / "some.txt").write_text("b.wav\n")
    assert speed.find_speech(tmp_path) == [tmp_path / "a.flac", tmp_path / "b.wav"]
    assert speed.find_speech(tmp_path / "some.txt") == [tmp_path / "b.wav"]


def test_turns_alternate() -> None:
    order: list[str] = []
    turns = Turns()
    for _ in range(2):
        assert turns.take(lambda: order.append("ours"), lambda: order.append("theirs")) == (
            None,
            None,
        )
    assert order == ["ours", "theirs", "theirs", "ours"]


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
def test_operators_are_told_apart(operator: str, shapes: list[list[int]], expected: str) -> None:
    assert kind(operator, shapes) == expected


def test_a_quick_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "QUICK", replace(speed.QUICK, runs=0))
    monkeypatch.setattr(speed.os, "cpu_count", lambda: 1)
    file = tmp_path / "bench.json"
    parts = ["one_file", "short_files", "profile", "streams", "packing"]
    speed.main(["--quick", "--json", str(file), "--only", *parts])
    printed = capsys.readouterr().out
    results = json.loads(file.read_text())
    assert results["models"].keys() == set(FAMILIES)
    for model in results["models"].values():
        assert model.keys() == {"name", "threads", *parts}
        assert model["one_file"]["1"]["encode"]["share"] > 0
        assert model["one_file"]["1"]["tokens"]["differing"] == 0
        for row in model["profile"].values():
            assert sum(row["encode"].values()) == pytest.approx(1)
        assert model["short_files"]["clips"] == speed.QUICK.clips
        assert model["short_files"]["tokens"]["differing"] == 0
    speed.main(["--markdown", str(file)])
    assert capsys.readouterr().out == printed
    assert "| supercodec (tiny) | encode" in printed


def test_parity_of_a_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bench.json"
    assets = Path(speed.__file__).parents[1] / "assets"
    listed = tmp_path / "list.txt"
    listed.write_text(f"{assets / 'speech_flite.flac'}\n")
    which = ["--quick", "--model", "supercodec", "--parity", "3"]
    speed.main([*which, "--files", str(listed), "--json", str(file)])
    found = json.loads(file.read_text())["models"]["supercodec"]["parity"]
    assert found["clips"] == 3
    for way in ("batch", "stream", "upstream"):
        assert found[way]["tokens"] > 0
        assert found[way]["differing"] == 0
    assert "3 clips: stream" in capsys.readouterr().out
