"""Decoding in bf16 against fp32 on a CPU: speed, error, and whether it can be heard.

    python -m benchmarks precision [--model NAME [CHECKPOINT] ...] [--files LIST] [--seconds 5]

Without CHECKPOINT, weights of the published size are generated. Their speed and error in dB are
representative, but they do not make speech: PESQ and STOI need trained weights (``--quality``).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

import codectool
from benchmarks.systems import (
    BUNDLED_SPEECH,
    Wave,
    batches,
    find_speech,
    generate,
    short_clips,
    speech,
)
from benchmarks.tables import table
from benchmarks.timing import InterleavedTimer, machine, threads
from codectool.audio.samples import resample
from codectool.codec import Codec

FRAME = 512  # samples of a spectrum
FULL_SCALE_DB = 96.0  # sound pressure level of a sine at full scale: 1 bit of 16 is at 0 dB
BATCH_SECONDS = 40.0


def noise_to_mask(signal: Wave, noise: Wave, sample_rate: int) -> Wave:
    """Return how far noise exceeds what the signal masks, in dB: ``(frames, Bark bands)``.

    Spreading of Schroeder et al. (1979), offsets of Johnston (1988), threshold in quiet of Terhardt
    (1979). Noise below 0 dB in every band is inaudible.
    """
    frequencies = np.fft.rfftfreq(FRAME, 1 / sample_rate)
    bark = 13 * np.arctan(7.6e-4 * frequencies) + 3.5 * np.arctan((frequencies / 7500) ** 2)
    bands = np.arange(int(bark[-1]) + 1)
    members = bark.astype(int)[:, None] == bands
    power = [_spectra(wave) for wave in (signal, noise)]
    signal_bands, noise_bands = (spectra @ members for spectra in power)
    distance = bands[:, None] - bands + 0.474
    spread = 10 ** (1.581 + 0.75 * distance - 1.75 * np.sqrt(1 + distance**2))
    excitation = signal_bands @ spread.T / spread.sum(1)
    flatness = np.log10(power[0] + 1e-20).mean(1) - np.log10(power[0].mean(1) + 1e-20)
    tonality = np.clip(flatness / -6, 0, 1)[:, None]
    masked = excitation / 10 ** (0.1 * (tonality * (9 + bands) + 5.5))
    khz = np.maximum(frequencies, 20) / 1000
    quiet = 3.64 * khz**-0.8 - 6.5 * np.exp(-0.6 * (khz - 3.3) ** 2) + 1e-3 * khz**4
    floor = [10 ** (0.1 * (quiet[members[:, band]].min() - FULL_SCALE_DB)) for band in bands]
    return np.asarray(10 * np.log10(noise_bands / np.maximum(masked, floor) + 1e-12))


def _spectra(wave: Wave) -> Wave:
    window = np.hanning(FRAME + 1)[:-1]
    frames = np.lib.stride_tricks.sliding_window_view(wave, FRAME)[:: FRAME // 2] * window
    return np.asarray((2 * np.abs(np.fft.rfft(frames)) / window.sum()) ** 2)


def errors(
    pair: dict[str, Codec], files: Sequence[Path], seconds: float, quality: bool
) -> dict[str, Any]:
    """Decode the tokens of files in both precisions and compare the audio."""
    rows = []
    for path in files:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        wave = samples[: round(seconds * rate)].mean(1)
        tokens = pair["fp32"].encode(wave, rate)
        high, low = (pair[name].decode(tokens, native_rate=True)[0] for name in ("fp32", "bf16"))
        noise = low - high
        above = noise_to_mask(high, noise, pair["fp32"].sample_rate)
        row = {
            "snr": 10 * np.log10((high**2).sum() / max((noise**2).sum(), 1e-20)),
            "mask_peak": above.max(),
            "audible": (above > 0).mean(),
        }
        if quality:
            row |= _quality_change(wave, high, low, rate, pair["fp32"].sample_rate)
        rows.append(row)
    return {key: [float(row[key]) for row in rows] for key in rows[0]}


def _quality_change(wave: Wave, high: Wave, low: Wave, rate: int, own: int) -> dict[str, float]:
    from pesq import PesqError, pesq
    from pystoi import stoi

    original = resample(wave[None], rate, 16000)[0]
    size = len(original)
    decoded = [resample(item[None], own, 16000)[0][:size] for item in (high, low)]
    on_error = PesqError.RETURN_VALUES
    scores = [pesq(16000, original, item, "wb", on_error=on_error) for item in decoded]
    heard = [stoi(original, item, 16000) for item in decoded]
    return {"pesq": scores[1] - scores[0], "stoi": heard[1] - heard[0]}


def speeds(pair: dict[str, Codec], files: Sequence[Path], seconds: float, turns: int) -> Any:
    """Return the seconds that one file and a folder take in both precisions."""
    codec = pair["fp32"]
    wave = speech(files, codec.sample_rate, 4 * seconds)
    one = codec.encode(wave[: round(seconds * codec.sample_rate)], codec.sample_rate)
    lengths = np.linspace(0.2 * seconds, 0.6 * seconds, 10)
    clips = [
        codec.encode_clips(batch)
        for batch in batches(short_clips(codec, wave, list(lengths)), BATCH_SECONDS)
    ]

    def folder(decoder: Codec) -> None:
        for batch in clips:
            decoder.decode_clips(batch)

    found = {"one file": _time(pair, lambda decoder: decoder.decode(one), turns)}
    return found | {"folder": _time(pair, folder, turns)}


def _time(pair: dict[str, Codec], work: Any, turns: int) -> dict[str, float]:
    timer = InterleavedTimer()
    for _ in range(turns + 1):
        timer.run({name: lambda codec=codec: work(codec) for name, codec in pair.items()})
    return {name: min(times[1:]) for name, times in timer.seconds.items()}


def render(results: dict[str, Any]) -> str:
    """Return the tables in Markdown."""
    fast, close = [], []
    for name, model in results["models"].items():
        for count, rows in model["speed"].items():
            for kind, times in rows.items():
                cells = [f"{times[key]:.2f} s" for key in ("fp32", "bf16")]
                ratio = times["fp32"] / times["bf16"]
                fast.append([name, count, kind, *cells, f"{ratio:.2f}"])
        found = model["errors"]
        cells = [f"{np.median(found['snr']):.1f} dB", f"{min(found['snr']):.1f} dB"]
        cells += [f"{np.median(found['mask_peak']):.1f} dB", f"{np.mean(found['audible']):.3%}"]
        for key in ("pesq", "stoi"):
            values = np.array(found.get(key, [np.nan]))
            largest = np.abs(values).max()
            known = f"{values.mean():+.4f} ({largest:.4f})"
            cells.append("" if np.isnan(largest) else known)
        close.append([name, str(len(found["snr"])), *cells])
    head = ["model", "files", "SNR, median", "SNR, worst", "noise over mask", "audible"]
    head += ["PESQ change (largest)", "STOI change (largest)"]
    speed_head = ["model", "threads", "decoded", "fp32", "bf16", "ratio"]
    tables = [table(speed_head, fast)] if fast else []
    return "\n\n".join([*tables, table(head, close)])


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--model", nargs="+", action="append", metavar=("NAME", "CHECKPOINT"))
    add("--files", type=Path, help="list or folder of speech; default: two bundled recordings")
    add("--seconds", type=float, default=5.0, help="of each file that are compared")
    add("--file-seconds", type=float, default=10.0, help="of audio whose decoding is timed")
    add("--turns", type=int, default=3)
    add("--threads", nargs="+", type=int, default=[1, 2])
    add("--quality", action="store_true", help="compare PESQ and STOI; needs trained weights")
    add("--json", type=Path, help="also write the values to this file")
    options = parser.parse_args()
    files = find_speech(options.files) if options.files else list(BUNDLED_SPEECH)
    results: dict[str, Any] = {"machine": machine(), "models": {}}
    with tempfile.TemporaryDirectory() as folder:
        for name, *given in options.model or [["bigcodec"], ["supercodec"]]:
            path = given[0] if given else generate(name, Path(folder))
            pair = {
                precision: codectool.load(name, path, device="cpu", precision=precision)
                for precision in ("fp32", "bf16")
            }
            row: dict[str, Any] = {"speed": {}}
            for count in options.threads if options.turns else []:
                with threads(count):
                    timed = speeds(pair, files, options.file_seconds, options.turns)
                    row["speed"][str(count)] = timed
            row["errors"] = errors(pair, files, options.seconds, options.quality)
            results["models"][name] = row
    print(render(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
