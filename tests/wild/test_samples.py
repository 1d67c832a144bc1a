"""Samples and codes that Python programs pass by mistake, and float files of another scale."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import codectool
from codectool import CodectoolError
from codectool.audio.files import read_crop
from codectool.codec import Codec
from codectool.encoding import encode_file
from codectool.errors import AudioError, DamagedError, TokensError

ASSETS = Path(__file__).parents[2] / "assets"
SINE = (np.sin(np.arange(2400) / 9) * 0.3).astype(np.float32)
TENSOR = torch.from_numpy(SINE)
PEAK = float(np.abs(SINE).max())

REFUSED = {
    "int16": (np.int16(SINE * 32767), "divide by 32768"),
    "int8": (np.int8(SINE * 127), "divide by 128"),
    "int32": (np.int32(SINE * 2e9), "divide by 2147483648"),
    "int64": (np.int64(SINE * 32767), "divide by the full scale, which is 32768 for 16-bit"),
    "uint8": (np.uint8(SINE * 127 + 128), "subtract 128, then divide by 128"),
    "bool": (SINE > 0, "not bool"),
    "complex": (SINE * 1j, "not complex64"),
    "list of int": ([1, 2, 3], "not int64"),
    "tensor int16": ((TENSOR * 32767).short(), "divide by 32768"),
    "tensor int32": ((TENSOR * 2e9).int(), "divide by 2147483648"),
    "tensor uint8": ((TENSOR * 127 + 128).byte(), "subtract 128, then divide by 128"),
    "tensor bool": (TENSOR > 0, "not bool"),
    "tensor complex": (TENSOR * 1j, "not complex64"),
    "sparse tensor": (TENSOR.to_sparse(), "cannot be converted to an array"),
    "meta tensor": (TENSOR.to("meta"), "cannot be converted to an array"),
    "ragged list": ([[0.1, 0.2], [0.1]], "cannot be converted to an array"),
    "tensors with gradients": ([TENSOR.clone().requires_grad_()], "cannot be converted"),
    "object array": (SINE.astype(object), "not object"),
    "list with None": ([0.1, None, 0.2], "not object"),
    "None": (None, "not object"),
    "dict": ({"array": SINE}, "not object"),
    "text": ("speech.wav", "not <U10"),
    "bytes": (SINE.tobytes(), "not |S"),
    "masked": (np.ma.masked_less(SINE, 0), "not finite"),
    "number": (0.5, "must have the shape"),
    "three axes": (SINE[None, None], "must have the shape"),
    "(n, channels)": (np.stack([SINE, SINE], 1), r"transposed\? pass `samples.T`"),
    "(800, 2)": (np.stack([SINE, SINE], 1)[:800], r"transposed\? pass `samples.T`"),
    "no channels": (np.zeros((0, 10), np.float32), "must have the shape"),
    "NaN": (np.where(np.arange(2400) == 5, np.nan, SINE), "sample 5 of channel 0 is nan"),
    "infinite": (np.where(np.arange(2400) == 5, np.inf, SINE), "sample 5 of channel 0 is inf"),
    "beyond float32": (SINE.astype(float) * 1e300, "not finite"),
    "16-bit scale": (SINE * 32768, "peak 9830.4; full scale is 1; these look like 16-bit"),
    "24-bit scale": (SINE * (1 << 23), "24-bit samples: divide by 8388608"),
    "32-bit scale": (SINE * (1 << 31), "32-bit samples: divide by 2147483648"),
    "16-bit scale, negative peak": (np.minimum(SINE * 32768, 0), "divide by 32768"),
    "float of any scale": (SINE * 1e20, "these are not audio samples"),
    "tensor of 16-bit scale": (TENSOR * 32768, "divide by 32768"),
    "bfloat16 of 16-bit scale": ((TENSOR * 32768).bfloat16(), "divide by 32768"),
}

ACCEPTED: dict[str, object] = {
    "list": SINE.tolist(),
    "float16": SINE.astype(np.float16),
    "float64": SINE.astype(np.float64),
    "big endian": SINE.astype(">f4"),
    "long double": SINE.astype(np.longdouble),
    "read-only": np.frombuffer(SINE.tobytes(), np.float32),
    "reversed": SINE[::-1],
    "memoryview": memoryview(SINE),
    "float64 tensor": TENSOR.double(),
    "float16 tensor": TENSOR.half(),
    "bfloat16 tensor": TENSOR.bfloat16(),
    "tensor with gradient": TENSOR.clone().requires_grad_(),
    "full scale of 32767": SINE / PEAK * 32768 / 32767,
    "100 channels": np.tile(SINE[:100], (100, 1)),
    "no samples": np.zeros((100, 0), np.float32),
}


@pytest.mark.parametrize(("samples", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_samples_of_another_type_scale_or_shape_are_refused(
    codecs: dict[str, Codec], samples: object, reason: str
) -> None:
    """NumPy and torch have one rule, and so have all ways to pass samples."""
    codec = codecs["hac"]
    ways: list[Callable[[], object]] = [
        lambda: codec.encode(samples, 24000),  # type: ignore[arg-type]
        lambda: codec.prepare(samples, 24000),  # type: ignore[arg-type]
    ]
    if "transposed" not in reason:
        ways += [
            lambda: codec.encode_chunks([samples], 24000, 1),  # type: ignore[list-item]
            lambda: codec.stream_encoder(24000).push(samples),  # type: ignore[arg-type]
        ]
        reason = reason.replace("must have the shape", "(must have the shape|channels, but)")
    for way in ways:
        with pytest.raises(AudioError, match=reason.replace("|S", r"\|S")):
            way()


@pytest.mark.parametrize("samples", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_float_samples_of_any_type_are_encoded_without_a_warning(
    codecs: dict[str, Codec], samples: object
) -> None:
    tokens = codecs["hac"].encode(samples, 24000)  # type: ignore[arg-type]
    assert tokens.num_samples == np.shape(samples)[-1]


def test_transposed_chunks_of_a_stream_are_recognized(codecs: dict[str, Codec]) -> None:
    encoder = codecs["hac"].stream_encoder(24000, 2)
    with pytest.raises(AudioError, match=r"100 channels, but the stream has 2; is the array trans"):
        encoder.push(np.zeros((100, 2), np.float32))


def test_stream_of_many_channels_takes_short_chunks(codecs: dict[str, Codec]) -> None:
    encoder = codecs["hac"].stream_encoder(24000, 100)
    encoder.push(np.zeros((100, 10), np.float32))
    assert encoder.num_samples == 10


def test_peak_above_full_scale_is_warned_about_once(codec: Codec) -> None:
    loud = np.tile(SINE * 4, 3)
    ways: dict[str, Callable[[], object]] = {
        "encode": lambda: codec.encode(loud, 24000),
        "prepare": lambda: codec.prepare(loud, 24000),
        "stream": lambda: list(map(codec.stream_encoder(24000).push, np.split(loud, 9))),
    }
    for name, way in ways.items():
        with pytest.warns(
            codectool.CodectoolWarning, match=r"samples: peak 1\.2; full scale is 1"
        ) as caught:
            way()
        assert len(caught) == 1, name
        assert caught[0].filename == __file__, name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", codectool.CodectoolWarning)
        assert np.array_equal(
            codec.encode(loud, 24000).codes, codec.encode(torch.from_numpy(loud), 24000).codes
        )


def test_stream_that_becomes_loud_is_refused_there(codecs: dict[str, Codec]) -> None:
    encoder = codecs["hac"].stream_encoder(24000)
    encoder.push(SINE)
    with pytest.raises(AudioError, match="samples: peak 9830.4"):
        encoder.push(SINE * 32768)


@pytest.mark.parametrize(
    ("container", "subtype"),
    [("WAV", "FLOAT"), ("WAV", "DOUBLE"), ("AIFF", "FLOAT"), ("AU", "FLOAT")],
)
def test_float_file_of_16_bit_scale_is_refused(
    codecs: dict[str, Codec], tmp_path: Path, container: str, subtype: str
) -> None:
    path = tmp_path / "speech.wav"
    soundfile.write(path, SINE * 32768, 24000, subtype, format=container)
    reason = (
        f"{path}: peak 9830.4; full scale is 1; these look like 16-bit samples: divide by 32768"
    )
    with pytest.raises(AudioError, match=f"^{reason}$"):
        encode_file(codecs["hac"], path, tmp_path / "speech.hcd")
    assert not (tmp_path / "speech.hcd").exists()
    with pytest.raises(AudioError, match=f"^{reason}$"):  # what training reads
        read_crop(path, 0, 1000, 24000)


def run(*arguments: object, stdin: bytes = b"") -> tuple[int, str]:
    """Run `codectool`; return its exit code and stderr."""
    command = [sys.executable, "-m", "codectool", *map(str, arguments)]
    result = subprocess.run(command, input=stdin, capture_output=True)
    return result.returncode, result.stderr.decode()


def test_command_line_refuses_another_scale_and_warns_of_loud_files(tmp_path: Path) -> None:
    for name, factor in {"loud": 4, "scaled": 32768, "good": 3}.items():
        soundfile.write(tmp_path / f"{name}.wav", SINE * factor, 24000, "FLOAT")
    code, text = run("encode", tmp_path / "scaled.wav", tmp_path / "out.hcd")
    assert (code, text.count("\n")) == (2, 1)
    assert text.startswith(f"error: {tmp_path / 'scaled.wav'}: peak 9830.4; full scale is 1")
    assert not (tmp_path / "out.hcd").exists()
    code, text = run("encode", tmp_path / "good.wav", tmp_path / "out.hcd")
    assert (code, text) == (0, "")
    code, text = run("encode", tmp_path / "loud.wav", tmp_path / "loud.hcd")
    assert (code, text.count("\n")) == (0, 1)
    assert text.startswith(f"warning: {tmp_path / 'loud.wav'}: peak 1.2; full scale is 1")
    raw = (SINE * 32768).tobytes()
    raw_options = ("--input-format", "f32le", "--input-rate", "24000")
    code, text = run("encode", "-", tmp_path / "pipe.hcd", *raw_options, stdin=raw)
    assert code == 2
    assert "peak 9830.4" in text


def test_folder_run_reports_scale_and_loudness_of_each_file(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, factor in {"loud": 4, "scaled": 32768, "good": 3}.items():
        soundfile.write(folder / f"{name}.wav", SINE * factor, 24000, "FLOAT")
    report = tmp_path / "report.jsonl"
    code, _ = run("encode", folder, tmp_path / "out", "--report", report)
    assert code == 1
    results = map(json.loads, report.read_text().splitlines())
    lines = {Path(line["source"]).stem: line for line in results if "source" in line}
    assert lines["scaled"]["reason"].startswith("peak 9830.4; full scale is 1; these look like")
    assert lines["loud"]["status"] == lines["good"]["status"] == "done"
    assert "peak 1.2; full scale is 1" in str(lines["loud"])
    assert "peak" not in str(lines["good"])


@pytest.mark.parametrize(("form", "subtype"), [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None)])
def test_overshoot_of_lossy_formats_is_no_warning(
    codecs: dict[str, Codec], tmp_path: Path, form: str, subtype: str | None
) -> None:
    path = tmp_path / "speech.ogg"
    speech, _ = soundfile.read(ASSETS / "speech_espeak.flac")
    wave = np.clip(speech / np.abs(speech).max() * 4, -0.999, 0.999)  # as a clipped master
    soundfile.write(path, wave, 24000, subtype, format=form)
    decoded, _ = soundfile.read(path)
    assert 1.02 < np.abs(decoded).max() < 1.5
    code, text = run("encode", path, tmp_path / "speech.hcd")
    assert code == 0
    assert "peak" not in text


BAD_CODES: dict[str, tuple[Callable[[np.ndarray], object], type[CodectoolError]]] = {
    "negative": (lambda codes: np.where(np.arange(codes.shape[2]) == 2, -1, codes), TokensError),
    "float": (lambda codes: codes + 0.7, TokensError),
    "whole floats": (lambda codes: codes.astype(float), TokensError),
    "bool": (lambda codes: codes > 0, TokensError),
    "swapped axes": (lambda codes: codes.transpose(0, 2, 1), TokensError),
    "two axes": (lambda codes: codes[0], TokensError),
    "four axes": (lambda codes: codes[None], TokensError),
    "too many codebooks": (lambda codes: np.repeat(codes, 9, axis=1), TokensError),
    "no codebook": (lambda codes: codes[:, :0], TokensError),
    "two channels": (lambda codes: np.repeat(codes, 2, axis=0), TokensError),
    "too large": (lambda codes: codes + (1 << 20), DamagedError),
    "too large for int32": (lambda codes: codes.astype(np.uint64) + (1 << 63), TokensError),
    "float tensor": (lambda codes: torch.from_numpy(codes) + 0.5, TokensError),
    "negative tensor": (lambda codes: torch.from_numpy(codes) * 0 - 1, TokensError),
    "text": (lambda codes: "codes", TokensError),
    "ragged list": (lambda codes: [[[1, 2], [1]]], TokensError),
    "None": (lambda codes: None, TokensError),
}


@pytest.mark.parametrize(("change", "error"), BAD_CODES.values(), ids=BAD_CODES.keys())
def test_stream_decoder_refuses_codes_that_tokens_refuse(
    codec: Codec, change: Callable[[np.ndarray], object], error: type[CodectoolError]
) -> None:
    codes = codec.encode(np.tile(SINE, 5), 24000).codes
    decoder = codec.stream_decoder(24000)
    with pytest.raises(error):
        decoder.push(change(codes))  # type: ignore[arg-type]
    decoder.push(codes)  # the stream is as it was


def test_stream_decoder_refuses_codes_above_a_codebook_of_odd_size(
    codecs: dict[str, Codec],
) -> None:
    codec = codecs["bigcodec"]
    codes = codec.encode(SINE, 24000).codes.copy()
    codes[0, 0, 0] = codec.model.codebook_sizes[0]
    with pytest.raises(DamagedError):
        codec.stream_decoder(24000).push(codes)


def test_stream_decoder_takes_integers_of_any_type(codec: Codec) -> None:
    codes = codec.encode(np.tile(SINE, 5), 24000).codes
    expected = codec.stream_decoder(24000).push(codes)
    for given in (
        codes.tolist(),
        codes.astype(np.uint64),
        codes.astype(">i4"),
        torch.from_numpy(codes),
        torch.from_numpy(codes).long(),
    ):
        assert np.array_equal(codec.stream_decoder(24000).push(given), expected)


def test_stream_decoder_keeps_its_number_of_codebooks(codecs: dict[str, Codec]) -> None:
    codec = codecs["bigcodec"]
    codes = codec.encode(SINE, 24000).codes
    decoder = codec.stream_decoder(24000)
    decoder.push(codes[:, :1])
    with pytest.raises(TokensError, match=r"\(channels, 1, frames\)"):
        decoder.push(codes)


def test_stream_decoder_refuses_codes_after_its_end(codec: Codec) -> None:
    decoder = codec.stream_decoder(24000)
    decoder.flush()
    with pytest.raises(TokensError, match="has ended"):
        decoder.push(codec.encode(SINE, 24000).codes)
    with pytest.raises(TokensError, match="has ended"):
        decoder.flush()


def test_stream_encoder_ends_once(codec: Codec) -> None:
    encoder = codec.stream_encoder(24000)
    encoder.push(SINE)
    encoder.flush()
    with pytest.raises(AudioError, match="has ended"):
        encoder.flush()
