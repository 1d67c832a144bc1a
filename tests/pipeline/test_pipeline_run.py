"""Folder runs: all kinds of audio, failing files, resumed runs."""

from __future__ import annotations

import io
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import codectool
from codectool.codec import Codec
from codectool.errors import UsageError
from codectool.pipeline.journal import JOURNAL_NAME, Journal
from codectool.pipeline.operations import DecodeOptions, EncodeOptions
from codectool.pipeline.report import Report, Result
from codectool.pipeline.run import (
    Callbacks,
    RunOptions,
    decode_tree,
    encode_tree,
    model_threads,
    reconstruct_tree,
)
from tests.pipeline.trees import FILES, contents, make_tree, outputs, write_audio


@pytest.fixture
def in_dir(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "in")


@pytest.fixture
def out_dir(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def hac(codecs: dict[str, Codec]) -> Codec:
    return codecs["hac"]


def counts(report: Report) -> tuple[int, int, int]:
    return report.done, report.skipped, len(report.failures)


def hcd_name(name: str) -> str:
    return str(Path(name).with_suffix(".hcd"))


def test_encode_tree_and_decode_tree_match_the_codec(
    codec: Codec, in_dir: Path, out_dir: Path, tmp_path: Path
) -> None:
    report = encode_tree(codec, in_dir, out_dir, EncodeOptions({"set": "x"}))
    assert counts(report) == (len(FILES), 0, 0)
    assert report.exit_code == 0
    assert report.audio_seconds == pytest.approx(sum(length / rate for _, _, rate, length in FILES))
    packed = outputs(out_dir)
    assert sorted(packed) == sorted(hcd_name(name) for name, *_ in FILES)
    assert report.bytes == sum(map(len, packed.values()))

    report = decode_tree(codec, out_dir, tmp_path / "back", DecodeOptions("flac"))
    assert counts(report) == (len(FILES), 0, 0)
    for name, channels, rate, length in FILES:
        tokens = codectool.read(out_dir / hcd_name(name))
        assert tokens.tags == {"set": "x"}
        samples, _ = soundfile.read(in_dir / name, dtype="float32", always_2d=True)
        expected_tokens = codec.encode(samples.T, rate)
        np.testing.assert_array_equal(tokens.codes, expected_tokens.codes)
        audio, back_rate = soundfile.read(
            (tmp_path / "back" / name).with_suffix(".flac"), dtype="float32", always_2d=True
        )
        assert (audio.shape, back_rate) == ((length, channels), rate)
        expected = np.clip(codec.decode(expected_tokens).T, -1, 1)
        np.testing.assert_allclose(audio, expected, atol=2**-15)


def test_reconstruct_tree_matches_encode_and_decode(
    codec: Codec, in_dir: Path, out_dir: Path, tmp_path: Path
) -> None:
    options = DecodeOptions(subtype="FLOAT", native_rate=True)
    # at 0.3 s some files are streamed, through a temporary file
    for seconds in (0.3, 40.0):
        run_options = RunOptions(batch_seconds=seconds, overwrite=True)
        encode_tree(codec, in_dir, out_dir, run_options=run_options)
        decode_tree(codec, out_dir, tmp_path / "back", options, run_options)
        assert reconstruct_tree(codec, in_dir, tmp_path / "both", options, run_options).done == len(
            FILES
        )
        assert outputs(tmp_path / "both").keys() == outputs(tmp_path / "back").keys()
        for name in outputs(tmp_path / "both"):
            both, rate = soundfile.read(tmp_path / "both" / name)
            back, _ = soundfile.read(tmp_path / "back" / name)
            assert rate == codec.sample_rate
            np.testing.assert_allclose(both, back, atol=1e-4)


def test_hac_outputs_do_not_depend_on_batches_or_threads(
    hac: Codec, in_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees = []
    for number, (threads, seconds, workers) in enumerate(
        [("1", 40.0, 1), ("3", 40.0, 4), ("2", 0.5, 2), ("1", 0.01, 1)]
    ):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        assert model_threads(hac.runner.device_type) == int(threads)
        out = tmp_path / str(number)
        encode_tree(hac, in_dir, out, run_options=RunOptions(None, workers, seconds))
        trees.append(contents(out))
    assert all(tree == trees[0] for tree in trees)


@pytest.mark.parametrize("threads", ["1", "2"])
def test_weights_are_packed_before_threads_share_them(
    codec: Codec, in_dir: Path, out_dir: Path, monkeypatch: pytest.MonkeyPatch, threads: str
) -> None:
    calls: list[tuple[str, int]] = []

    def record(name: str, run: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def recorded(signals: Any) -> Any:
            calls.append((name, threading.get_ident()))
            return run(signals)

        return recorded

    for name in ("encode", "decode"):
        monkeypatch.setattr(codec.runner, name, record(name, getattr(codec.runner, name)))
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    reconstruct_tree(codec, in_dir, out_dir)
    here = [name for name, thread in calls if thread == threading.get_ident()]
    assert here == (["encode", "decode"] if threads == "2" else [])
    assert calls[: len(here)] == [(name, threading.get_ident()) for name in here]
    calls.clear()
    assert reconstruct_tree(codec, in_dir, out_dir).skipped
    assert not calls


def test_model_threads_is_one_per_core_on_a_cpu(
    codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert model_threads(codec.runner.device_type) == 5
    monkeypatch.setattr(codec.runner, "device_type", "cuda")
    assert model_threads(codec.runner.device_type) == 1


def test_second_run_skips_complete_outputs(codec: Codec, in_dir: Path, out_dir: Path) -> None:
    encode_tree(codec, in_dir, out_dir)
    before = contents(out_dir)
    times = {name: (out_dir / name).stat().st_mtime_ns for name in before}
    report = encode_tree(codec, in_dir, out_dir)
    assert counts(report) == (0, len(FILES), 0)
    assert (report.idle_share, report.rtf) == (None, None)
    assert {name: (out_dir / name).stat().st_mtime_ns for name in before} == times
    assert contents(out_dir) == before


def delete(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [delete, cut, flip, empty])
def test_second_run_repairs_damaged_outputs(
    codec: Codec, in_dir: Path, out_dir: Path, damage: Any
) -> None:
    encode_tree(codec, in_dir, out_dir)
    before = contents(out_dir)
    for name in ("a/two.hcd", "six.hcd"):
        damage(out_dir / name)
    assert contents(out_dir) != before
    assert counts(encode_tree(codec, in_dir, out_dir)) == (2, len(FILES) - 2, 0)
    assert contents(out_dir) == before


def test_changed_input_is_processed_again(hac: Codec, in_dir: Path, out_dir: Path) -> None:
    encode_tree(hac, in_dir, out_dir)
    write_audio(in_dir / "six.wav", 1, 16000, 3000, seed=1)
    os.utime(in_dir / "seven.wav", ns=(1, 1))
    assert counts(encode_tree(hac, in_dir, out_dir)) == (2, len(FILES) - 2, 0)
    assert codectool.read(out_dir / "six.hcd").num_channels == 1


def test_changed_settings_process_all_files_again(
    codecs: dict[str, Codec], in_dir: Path, out_dir: Path, tmp_path: Path
) -> None:
    everything = (len(FILES), 0, 0)
    for options in (None, EncodeOptions({"a": "b"}), EncodeOptions(block_frames=7)):
        assert counts(encode_tree(codecs["hac"], in_dir, out_dir, options)) == everything
    assert counts(encode_tree(codecs["bigcodec"], in_dir, out_dir)) == everything
    back = tmp_path / "back"
    for choices in (DecodeOptions(), DecodeOptions(subtype="PCM_24"), DecodeOptions(force=True)):
        assert counts(decode_tree(codecs["bigcodec"], out_dir, back, choices)) == everything
    choices = DecodeOptions(subtype="pcm_24")
    decode_tree(codecs["bigcodec"], out_dir, back, choices)
    choices = DecodeOptions(subtype="PCM_24")  # the same format
    assert counts(decode_tree(codecs["bigcodec"], out_dir, back, choices)) == (0, len(FILES), 0)


def test_overwrite_processes_all_files_again(hac: Codec, in_dir: Path, out_dir: Path) -> None:
    encode_tree(hac, in_dir, out_dir)
    report = encode_tree(hac, in_dir, out_dir, run_options=RunOptions(overwrite=True))
    assert counts(report) == (len(FILES), 0, 0)


def test_files_of_unknown_origin_are_replaced_only_with_overwrite(
    hac: Codec, in_dir: Path, out_dir: Path
) -> None:
    (out_dir / "a").mkdir(parents=True)
    (out_dir / "a/one.hcd").write_text("mine")
    (out_dir / "six.hcd").mkdir()
    report = encode_tree(hac, in_dir, out_dir)
    assert counts(report) == (len(FILES) - 2, 0, 2)
    reasons = {failed.source.name: str(failed.reason) for failed in report.failures}
    assert "exists; give `--overwrite`" in reasons["one.wav"]
    assert "is a folder" in reasons["six.wav"]
    assert (out_dir / "a/one.hcd").read_text() == "mine"
    report = encode_tree(hac, in_dir, out_dir, run_options=RunOptions(overwrite=True))
    assert counts(report) == (len(FILES) - 1, 0, 1)
    assert codectool.read(out_dir / "a/one.hcd").num_samples == 4000


def test_begun_outputs_are_replaced(hac: Codec, in_dir: Path, out_dir: Path) -> None:
    """A power failure between an output and its second line in the journal."""
    encode_tree(hac, in_dir, out_dir)
    before = contents(out_dir)
    journal = out_dir / JOURNAL_NAME
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for entry in lines[:3]:
        del entry["bytes"], entry["crc32"]
    journal.write_text("".join(json.dumps(entry) + "\n" for entry in lines))
    assert counts(encode_tree(hac, in_dir, out_dir)) == (3, len(FILES) - 3, 0)
    assert contents(out_dir) == before


BAD = {
    "empty.wav": (b"", "is empty (0 bytes)"),
    "text.wav": (b"no audio at all\n" * 9, "not audio that libsndfile can read"),
    "damaged.flac": (None, "is damaged"),
    "nan.wav": (None, "sample 5 of channel 0 is nan"),
}


def test_failing_files_are_listed_and_do_not_stop_the_run(
    codec: Codec, in_dir: Path, out_dir: Path
) -> None:
    for name, (data, _) in BAD.items():
        (in_dir / "a" / name).write_bytes(data or b"")
    flac = io.BytesIO()
    soundfile.write(flac, np.random.default_rng(0).normal(0, 0.1, 40000), 16000, format="FLAC")
    (in_dir / "a/damaged.flac").write_bytes(flac.getvalue())
    flip(in_dir / "a/damaged.flac")
    wave = np.zeros(100, np.float32)
    wave[5] = np.nan
    soundfile.write(in_dir / "a/nan.wav", wave, 16000, "FLOAT")
    (in_dir / "gone.wav").symlink_to(in_dir / "nowhere")
    write_audio(in_dir / "a/one.flac", 1, 16000, 500)
    seen: list[Result] = []
    report = encode_tree(codec, in_dir, out_dir, callbacks=Callbacks(on_result=seen.append))
    assert counts(report) == (len(FILES), 0, len(BAD) + 2)
    assert (report.exit_code, len(seen)) == (1, len(FILES) + len(BAD) + 2)
    reasons = {failed.source.name: str(failed.reason) for failed in report.failures}
    assert reasons["gone.wav"].startswith("No such file or directory")
    assert reasons["one.wav"].startswith(f"would become {out_dir / 'a/one.hcd'}")
    for name, (_, reason) in BAD.items():
        assert reason in reasons[name]
        assert name not in reasons[name]
    good = {hcd_name(name) for name, *_ in FILES}
    assert outputs(out_dir).keys() == good
    assert counts(encode_tree(codec, in_dir, out_dir)) == (0, len(FILES), len(BAD) + 2)


def test_decode_tree_conceals_damage_on_request(
    hac: Codec, in_dir: Path, out_dir: Path, tmp_path: Path
) -> None:
    encode_tree(hac, in_dir, out_dir, EncodeOptions(block_frames=8))
    flip(out_dir / "eight.hcd")
    cut(out_dir / "b/four.hcd")
    (out_dir / "b/five.hcd").write_text("no tokens")
    report = decode_tree(hac, out_dir, tmp_path / "back")
    assert counts(report) == (len(FILES) - 3, 0, 3)
    report = decode_tree(hac, out_dir, tmp_path / "back", DecodeOptions(conceal=True))
    assert (len(report.damaged), report.exit_code) == (2, 1)
    assert [failed.source.name for failed in report.failures] == ["five.hcd"]
    assert {result.source.name for result in report.damaged} == {"eight.hcd", "four.hcd"}
    (out_dir / "b/five.hcd").unlink()
    options = DecodeOptions(conceal=True, subtype="FLOAT")
    assert decode_tree(hac, out_dir, tmp_path / "back", options).exit_code == 3
    assert soundfile.info(tmp_path / "back/eight.wav").frames == 16000


def test_decode_tree_rejects_tokens_of_other_weights(
    codecs: dict[str, Codec], in_dir: Path, out_dir: Path, tmp_path: Path
) -> None:
    encode_tree(codecs["hac"], in_dir, out_dir)
    report = decode_tree(codecs["bigcodec"], out_dir, tmp_path / "back")
    assert counts(report) == (0, 0, len(FILES))
    assert all("the tokens are hac" in str(failed.reason) for failed in report.failures)


def test_failing_batch_is_repeated_file_by_file(
    hac: Codec, in_dir: Path, out_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode_clips = hac.encode_clips

    def refuse(clips: Any) -> Any:
        if any(clip.num_samples == 801 for clip in clips):
            raise RuntimeError("wrong shape\nand more")
        return encode_clips(clips)

    monkeypatch.setattr(hac, "encode_clips", refuse)
    report = encode_tree(hac, in_dir, out_dir)
    assert counts(report) == (len(FILES) - 1, 0, 1)
    assert report.failures[0].source.name == "five.aiff"
    assert report.failures[0].reason == "unexpected RuntimeError: wrong shape"


def test_files_restricts_the_run(hac: Codec, in_dir: Path, out_dir: Path) -> None:
    files = ["a/one.wav", str(in_dir / "six.wav"), "none.wav", "/elsewhere.wav", "a/one.wav"]
    report = encode_tree(hac, in_dir, out_dir, run_options=RunOptions(files))
    assert counts(report) == (2, 0, 2)
    assert sorted(outputs(out_dir)) == ["a/one.hcd", "six.hcd"]
    reasons = {str(failed.source): failed.reason for failed in report.failures}
    assert reasons["/elsewhere.wav"] == f"is not inside {in_dir}"
    # the journal keeps outputs that are not in the list
    assert counts(encode_tree(hac, in_dir, out_dir, run_options=RunOptions(["eight.wav"]))) == (
        1,
        0,
        0,
    )
    assert counts(encode_tree(hac, in_dir, out_dir)) == (len(FILES) - 3, 3, 0)


def test_outputs_beside_inputs_replace_no_input(hac: Codec, in_dir: Path) -> None:
    before = contents(in_dir)
    assert counts(encode_tree(hac, in_dir, in_dir)) == (len(FILES), 0, 0)
    assert before.items() <= contents(in_dir).items()
    report = decode_tree(hac, in_dir, in_dir)
    there = {"one.hcd", "six.hcd", "seven.hcd", "eight.hcd"}  # as .wav
    assert {failed.source.name for failed in report.failures} == there
    assert before.items() <= contents(in_dir).items()
    with pytest.raises(UsageError, match="outputs would replace inputs"):
        reconstruct_tree(hac, in_dir, in_dir)


def test_nested_folders_do_not_take_outputs_for_inputs(
    hac: Codec, in_dir: Path, out_dir: Path
) -> None:
    for _ in range(2):
        reconstruct_tree(hac, in_dir, in_dir / "out")
        assert len(outputs(in_dir)) == 2 * len(FILES) + 1  # and the journal
    make_tree(out_dir / "in")
    before = contents(out_dir / "in")
    for done in (len(FILES), 0):
        assert reconstruct_tree(hac, out_dir / "in", out_dir).done == done
        assert contents(out_dir / "in") == before
    make_tree(out_dir / "in" / "in")
    report = reconstruct_tree(hac, out_dir / "in", out_dir, run_options=RunOptions(overwrite=True))
    replaced = {failed.source for failed in report.failures}
    assert replaced == set((out_dir / "in/in").rglob("*.wav"))
    assert before.items() <= contents(out_dir / "in").items()
    again = reconstruct_tree(hac, out_dir / "in", out_dir)
    assert (again.done, len(again.failures)) == (0, len(report.failures))


def test_output_that_links_to_its_input_is_rejected(
    hac: Codec, in_dir: Path, out_dir: Path
) -> None:
    out_dir.mkdir()
    (out_dir / "six.wav").symlink_to(in_dir / "six.wav")
    before = contents(in_dir)
    report = reconstruct_tree(hac, in_dir, out_dir, run_options=RunOptions(overwrite=True))
    assert [str(failed.reason) for failed in report.failures] == [
        "is also the output; name another folder"
    ]
    assert contents(in_dir) == before


def test_run_rejects_unusable_folders(
    hac: Codec, in_dir: Path, out_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="there is no such folder"):
        encode_tree(hac, tmp_path / "none", out_dir)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be created"):
        encode_tree(hac, in_dir, tmp_path / "file")
    (tmp_path / "bare").mkdir()
    with pytest.raises(UsageError, match="bare: contains no audio$"):
        encode_tree(hac, tmp_path / "bare", out_dir)
    with Journal(out_dir), pytest.raises(UsageError, match="another run is writing there"):
        encode_tree(hac, in_dir, out_dir)
    assert outputs(out_dir) == {}


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_interrupted_run_leaves_complete_files_only(
    codec: Codec, in_dir: Path, out_dir: Path, tmp_path: Path, error: Any
) -> None:
    def stop(_: Result) -> None:
        raise error

    run_options = RunOptions(batch_seconds=0.5)
    encode_tree(codec, in_dir, tmp_path / "undisturbed", run_options=run_options)
    expected = contents(tmp_path / "undisturbed")
    threads = threading.active_count()
    with pytest.raises((KeyboardInterrupt, OSError)):
        encode_tree(
            codec, in_dir, out_dir, run_options=run_options, callbacks=Callbacks(on_result=stop)
        )
    assert threading.active_count() == threads
    left = outputs(out_dir)
    assert left.items() <= expected.items()
    encode_tree(codec, in_dir, out_dir, run_options=run_options)
    assert contents(out_dir) == expected


def test_full_disk_stops_the_run(
    hac: Codec, in_dir: Path, out_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("codectool.pipeline.steps.atomic_output", full)
    with pytest.raises(OSError, match="No space left"):
        encode_tree(hac, in_dir, out_dir)


def test_callbacks_receive_the_totals(hac: Codec, in_dir: Path, out_dir: Path) -> None:
    found: list[int] = []
    seconds: list[float] = []
    encode_tree(hac, in_dir, out_dir, callbacks=Callbacks(found.append, seconds.append))
    assert found == [len(FILES)]
    assert seconds == [pytest.approx(sum(length / rate for _, _, rate, length in FILES))]


def test_old_names_of_the_run_still_work(hac: Codec, in_dir: Path, out_dir: Path) -> None:
    from codectool.pipeline import run

    with pytest.warns(DeprecationWarning, match="use `Callbacks`"):
        observer = run.Observer
    found: list[int] = []
    options = {"how": RunOptions(["six.wav"]), "observer": observer(on_found=found.append)}
    with pytest.warns(DeprecationWarning, match="use `(run_options|callbacks)`"):
        encode_tree(hac, in_dir, out_dir, **options)
    assert (found, list(outputs(out_dir))) == ([1], ["six.hcd"])
