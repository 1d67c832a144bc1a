"""How well speech comes back, and from how many bits: our codecs beside Codec2 and Opus.

    python -m benchmarks.quality --files LIST [--checkpoint FILE ...]
        [--codec codec2@1300 --codec opus@6] [--json OUT] [--markdown] [--picture OUT.png]

LIST names one clip per line, relative to its own folder, as `codectool filelist` writes it. Each
clip is brought to mono, 24 kHz and 16 bits; this is what every system gets and what its output is
compared with. From the outputs of Codec2 and Opus the one constant delay is taken off that is found
over all clips; ours have none to take off, there it is only printed. It needs the packages `pesq`
and `pystoi`, and for Codec2 and Opus their programs (Debian: `codec2`, `opus-tools`).

- PESQ wide-band, STOI and ESTOI at 16 kHz; mel distance and SI-SDR at 24 kHz.
- kbps: bits that carry audio per second (tokens; Codec2's frames; Opus's packets), and whole files
  (`.hcd` with its header; Codec2's raw frames in whole bytes; Ogg pages and heads, no padding).
- RTF: seconds of processor time of one thread per second of audio; for the programs of Codec2 and
  Opus with their start and their files.
- mean and (worst) over clips. A clip that a measure cannot judge (too little speech) is left out of
  that measure, and counted.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measures import (
    RATE,
    Wave,
    advance,
    bit_entropies,
    check_scorers,
    distinct_share,
    find_delay,
    score,
)
from benchmarks.picture import draw
from benchmarks.systems import Coded, load_clip, open_system
from codectool.errors import CodectoolError, UsageError

# measure, its heading, decimals, which of two is the worse
MEASURES: list[tuple[str, str, int, Callable[..., Any]]] = [
    ("pesq_wb", "PESQ-wb", 2, min),
    ("stoi", "STOI", 3, min),
    ("estoi", "ESTOI", 3, min),
    ("mel_db", "mel, dB", 2, max),
    ("si_sdr_db", "SI-SDR, dB", 1, min),
]


@dataclass(frozen=True)
class Clip:
    """A recording.

    Attributes:
        name: as the list has it.
        wave: ``(N,)`` at 24 kHz.
    """

    name: str
    wave: Wave

    @property
    def seconds(self) -> float:
        return len(self.wave) / RATE


def read_list(path: Path) -> list[Clip]:
    """The clips that a list names.

    Raises:
        UsageError: the list cannot be read, or is empty.
        AudioError: a clip cannot be read.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; --files takes a list of clips") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: is no text; --files takes a list of clips") from error
    names = [line.partition("\t")[0] for line in lines if line and not line.startswith("#")]
    clips = [Clip(name, load_clip(path.parent / name)) for name in names]
    if not clips:
        raise UsageError(f"{path}: names no clip")
    return clips


def code_all(system: str, waves: list[Wave]) -> list[Coded]:
    """Code clips, in a process of its own."""
    torch.set_num_threads(1)
    opened = open_system(system)
    return [opened.code(wave) for wave in waves]


@dataclass(frozen=True)
class Result:
    """What one system made of all clips.

    Attributes:
        delay: samples at 24 kHz by which it is late.
        waves: its outputs, as they were scored.
        rows: one dictionary of measures per clip.
        summary: figures over all clips.
    """

    delay: int
    waves: list[Wave]
    rows: list[dict[str, Any]]
    summary: dict[str, Any]


def measure(system: str, clips: list[Clip], pool: Executor, jobs: int) -> Result:
    """Code all clips with one system, and score what comes back."""
    waves = [clip.wave for clip in clips]
    parts = list(pool.map(code_all, [system] * jobs, [waves[part::jobs] for part in range(jobs)]))
    coded = [parts[number % jobs][number // jobs] for number in range(len(clips))]
    delay = find_delay([(wave, one.wave) for wave, one in zip(waves, coded, strict=True)])
    shift = delay if open_system(system).late else 0
    outputs = [advance(one.wave, shift, len(wave)) for wave, one in zip(waves, coded, strict=True)]
    scores = pool.map(score, waves, outputs)
    rows = [
        {
            "clip": clip.name,
            "seconds": clip.seconds,
            **scored,
            "kbps": one.payload_bits / clip.seconds / 1000,
            "kbps_file": 8 * one.file_bytes / clip.seconds / 1000,
        }
        for clip, one, scored in zip(clips, coded, scores, strict=True)
    ]
    return Result(delay, outputs, rows, summarise(clips, coded, rows, delay))


def summarise(
    clips: list[Clip], coded: list[Coded], rows: list[dict[str, Any]], delay: int
) -> dict[str, Any]:
    """Means, worst clips, rates, speed, and what the tokens are like."""
    seconds = sum(clip.seconds for clip in clips)
    summary: dict[str, Any] = {"clips": len(clips), "seconds": seconds}
    for name, _, _, worse in MEASURES:
        judged = [(row[name], row["clip"]) for row in rows if row[name] is not None]
        summary[name] = {"clips": len(judged)}
        if judged:
            worst = worse(judged)
            mean = statistics.fmean(value for value, _ in judged)
            summary[name] |= {"mean": mean, "worst": worst[0], "worst_clip": worst[1]}
    summary["kbps"] = sum(one.payload_bits for one in coded) / seconds / 1000
    summary["kbps_file"] = 8 * sum(one.file_bytes for one in coded) / seconds / 1000
    summary["rtf_encode"] = sum(one.encode_seconds for one in coded) / seconds
    summary["rtf_decode"] = sum(one.decode_seconds for one in coded) / seconds
    summary["delay_ms"] = 1000 * delay / RATE
    codes = [one.codes for one in coded if one.codes is not None]
    if codes:
        streams = np.concatenate(codes, axis=1)
        entropies = [
            entropy
            for stream, bits in zip(streams, coded[0].stream_bits, strict=True)
            for entropy in bit_entropies(stream, bits)
        ]
        summary["frames"] = streams.shape[1]
        summary["bit_entropies"] = entropies
        summary["distinct_tokens"] = [distinct_share(stream) for stream in streams]
    return summary


def table(results: dict[str, Result]) -> list[list[str]]:
    """Rows of cells, the first of them the headings."""
    heads = [heading for _, heading, _, _ in MEASURES]
    rows = [["system", "kbps", "in files", *heads, "delay, ms", "RTF encode", "decode"]]
    for name, result in results.items():
        found = result.summary
        cells = [name, f"{found['kbps']:.2f}", f"{found['kbps_file']:.2f}"]
        for key, _, digits, _ in MEASURES:
            if "mean" in found[key]:
                mean, worst = found[key]["mean"], found[key]["worst"]
                cells.append(f"{mean:.{digits}f} ({worst:.{digits}f})")
            else:
                cells.append("-")
        cells += [f"{found[key]:.3f}" for key in ("rtf_encode", "rtf_decode")]
        cells.insert(-2, f"{found['delay_ms']:.1f}")
        rows.append(cells)
    return rows


def print_table(rows: list[list[str]], markdown: bool) -> None:
    if markdown:
        rows = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
        print("\n".join("| " + " | ".join(row) + " |" for row in rows))
        return
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(padded).rstrip())


def print_notes(results: dict[str, Result]) -> None:
    """What does not fit into the table."""
    for name, result in results.items():
        found = result.summary
        for key, heading, _, _ in MEASURES:
            if left := found["clips"] - found[key]["clips"]:
                print(f"{name}: {left} of {found['clips']} clips have no {heading}")
        if "bit_entropies" in found:
            entropies = found["bit_entropies"]
            shares = ", ".join(f"{share:.3f}" for share in found["distinct_tokens"])
            print(
                f"{name}: entropy of each of its {len(entropies)} bits "
                + " ".join(f"{entropy:.3f}" for entropy in entropies)
                + f"; sum {sum(entropies):.2f}, least {min(entropies):.3f}; "
                f"distinct tokens {shares} of {found['frames']} frames"
            )


def run(options: argparse.Namespace) -> None:
    check_scorers()
    systems = name_systems(options.checkpoint, options.codec)
    for system in systems.values():
        open_system(system)  # complain about a wrong name before work begins
    clips = read_list(options.files)
    if options.clip and not any(options.clip in clip.name for clip in clips):
        raise UsageError(f"--clip {options.clip}: no clip of {options.files} is called so")
    jobs = min(options.jobs, len(clips))
    context = multiprocessing.get_context("spawn")
    results = {}
    with ProcessPoolExecutor(jobs, context) as pool:
        for name, system in systems.items():
            print(f"{name} ...", file=sys.stderr)
            results[name] = measure(system, clips, pool, jobs)
    seconds = sum(clip.seconds for clip in clips)
    print(f"{len(clips)} clips, {seconds / 60:.1f} minutes; mean (worst) over clips")
    print_table(table(results), options.markdown)
    print_notes(results)
    if options.json:
        found = {
            name: {"summary": result.summary, "clips": result.rows}
            for name, result in results.items()
        }
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if options.picture:
        number = next(n for n, clip in enumerate(clips) if (options.clip or "") in clip.name)
        waves = {name: result.waves[number] for name, result in results.items()}
        draw(options.picture, clips[number].name, {"original": clips[number].wave, **waves})


def name_systems(checkpoints: list[str], codecs: list[str]) -> dict[str, str]:
    """What to call each system in the table.

    Raises:
        UsageError: nothing to measure, or one name for two.
    """
    pairs = []
    for text in checkpoints:
        name, mark, path = text.partition("=")
        pairs.append((name, path) if mark else (Path(text).stem, text))
    pairs += [(text, text) for text in codecs]
    if not pairs:
        raise UsageError("nothing to measure: give --checkpoint FILE or --codec NAME")
    if len(names := dict(pairs)) < len(pairs):
        raise UsageError("two systems have one name; give --checkpoint NAME=FILE")
    return names


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=Path, required=True, metavar="LIST")
    parser.add_argument("--checkpoint", action="append", default=[], metavar="[NAME=]FILE")
    parser.add_argument(
        "--codec",
        action="append",
        default=[],
        metavar="NAME",
        help="codec2@MODE, opus@KBPS, or a codec of ours whose weights ship",
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="every figure of every clip")
    parser.add_argument("--markdown", action="store_true", help="the table for a document")
    parser.add_argument("--picture", type=Path, metavar="PNG", help="spectrograms of one clip")
    parser.add_argument("--clip", metavar="TEXT", help="a part of that clip's name")
    parser.add_argument("--jobs", type=int, choices=[1, 2], default=2, help="processes")
    try:
        run(parser.parse_args())
    except CodectoolError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
