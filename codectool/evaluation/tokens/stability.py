"""Token stability: how many tokens stay when a sound changes in a way that is hardly heard."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from codectool.audio.samples import resample
from codectool.errors import AudioError
from codectool.evaluation.tables import NO_VALUE, Rows, as_text
from codectool.evaluation.tokens.usage import MAX_CODEBOOK_SIZE
from codectool.tokens import TokenLayout, Tokens

if TYPE_CHECKING:
    from codectool.codec import Codec

SHIFTS = (0.125, 0.25, 0.5, 1.0)  # in hops
GAINS_DB = (-6, 6)
SNR_DB = 30
SEED = 0
# Headings by name, in the order of tables.
CHANGES = {
    **{f"shift_{shift:g}_hop": f"shift {shift:g} hop" for shift in SHIFTS},
    **{f"gain_{gain:+d}_db": f"{gain:+d} dB" for gain in GAINS_DB},
    f"noise_{SNR_DB}_db": f"noise {SNR_DB} dB",
    "coded_twice": "coded twice",
}
LEGEND = f"""\
shift: the clip begins a part of a hop later; tokens are compared with those nearest in time, after
a shift of 1 hop with the next ones. dB: louder or softer. noise: white noise {SNR_DB} dB below the
clip. coded twice: encoded, decoded and encoded again."""

Samples = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int32]


class TokenStability:
    """Tokens of one model that stay when clips are changed, counted over clips.

    Args:
        system: name of the codec in tables; its decoder matters for audio that is coded twice.
        layout: layout of the tokens.
        fingerprint: token fingerprint.

    Attributes:
        clips: number of clips.
        seconds: their length, summed over channels.
        frames: frames that were compared, by change.
        kept: frames in which the token of each codebook stayed, by change, ``(K,)``.
        kept_frames: frames in which all tokens stayed, by change.
        changed_bits: bits that did not stay, by change, ``(K,)``.
    """

    def __init__(self, system: str, layout: TokenLayout, fingerprint: str) -> None:
        self.system = system
        self.layout = layout
        self.fingerprint = fingerprint
        self.clips, self.seconds = 0, 0.0
        self.frames = dict.fromkeys(CHANGES, 0)
        self.kept_frames = dict.fromkeys(CHANGES, 0)
        self.kept, self.changed_bits = (
            {change: np.zeros(layout.num_codebooks, np.int64) for change in CHANGES} for _ in "ab"
        )

    def add(self, codec: Codec, samples: Samples, rate: int) -> None:
        """Encode a clip ``(C, N)`` as it is and changed, and count the tokens that stay.

        Raises:
            AudioError: there are no samples, or the rate is too low.
        """
        if not samples.size:
            raise AudioError("holds no samples")
        codec.check_rate(rate)
        changed = list(_changed(codec, resample(samples, rate, codec.sample_rate)))
        self.clips += 1
        self.seconds += samples.size / rate
        for change, before, after in changed:
            same = before == after
            self.frames[change] += same[:, 0].size
            self.kept[change] += same.sum(axis=(0, 2))
            self.kept_frames[change] += int(same.all(axis=1).sum())
            bits = np.bitwise_count(before ^ after)
            self.changed_bits[change] += bits.sum(axis=(0, 2), dtype=np.int64)

    @property
    def heading(self) -> str:
        """The codec, its tokens, and what they were counted in."""
        clips = f"{self.clips} clip{'s' * (self.clips != 1)}"
        tokens = f"{self.system} (tokens {self.fingerprint})"
        return f"{tokens}: {clips}, {self.seconds / 60:.1f} minutes"

    def shares(self, change: str) -> dict[str, Any]:
        """Return the shares of tokens that stay, 0 to 1; None if no frame was compared.

        Returns:
            ``codebooks``, the share of each; ``tokens``, their mean; ``frames``, those in which all
            tokens stay; and ``bits``, the share of each codebook's bits.
        """
        frames = self.frames[change]
        if not frames:
            return dict.fromkeys(("codebooks", "tokens", "frames", "bits"))
        widths = np.array(self.layout.bits_per_codebook)
        return {
            "codebooks": (self.kept[change] / frames).tolist(),
            "tokens": float(self.kept[change].mean() / frames),
            "frames": self.kept_frames[change] / frames,
            "bits": (1 - self.changed_bits[change] / (frames * widths)).tolist(),
        }

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return {
            "system": self.system,
            "codec": self.layout.family,
            "token_fingerprint": self.fingerprint,
            "model_sample_rate": self.layout.sample_rate,
            "frame_rate": self.layout.frame_rate,
            "clips": self.clips,
            "seconds": self.seconds,
            "changes": [
                {"change": change, "compared_frames": self.frames[change], **self.shares(change)}
                for change in CHANGES
            ],
        }

    def rows(self) -> Rows:
        """Return a row for each codebook, and for all; of binary codebooks also for their bits."""
        columns = [self.shares(change) for change in CHANGES]

        def row(name: str, key: str, codebook: int | None = None) -> list[str]:
            shares = [column[key] for column in columns]
            values = (s if s is None or codebook is None else s[codebook] for s in shares)
            return [name, *(NO_VALUE if v is None else f"{100 * v:.1f}" for v in values)]

        rows = []
        for number, bits in enumerate(self.layout.bits_per_codebook):
            name = f"codebook {number + 1}" if self.layout.num_codebooks > 1 else "tokens"
            rows.append(row(name, "codebooks", number))
            if 1 << bits > MAX_CODEBOOK_SIZE:
                rows.append(row("bits", "bits", number))
        if self.layout.num_codebooks > 1:
            rows += [row("all tokens", "tokens"), row("whole frames", "frames")]
        return rows


def _changed(codec: Codec, wave: Samples) -> Iterator[tuple[str, Codes, Codes]]:
    """Yield each change with the codes ``(C, K, F)`` before and after, for the same frames."""
    tokens = _encode(codec, wave)
    for shift in SHIFTS:
        later = wave[:, round(shift * codec.hop_length) :]
        if later.size:
            after = _encode(codec, later).codes
            before = tokens.codes[..., int(shift) :]
            frames = min(before.shape[2], after.shape[2])
            yield f"shift_{shift:g}_hop", before[..., :frames], after[..., :frames]
    for gain in GAINS_DB:
        scaled = wave * np.float32(10 ** (gain / 20))
        yield f"gain_{gain:+d}_db", tokens.codes, _encode(codec, scaled).codes
    level = np.sqrt(np.mean(wave**2, axis=1, dtype=float, keepdims=True)) * 10 ** (-SNR_DB / 20)
    noise = level * np.random.default_rng(SEED).standard_normal(wave.shape)
    noisy = (wave + noise).astype(np.float32)
    yield f"noise_{SNR_DB}_db", tokens.codes, _encode(codec, noisy).codes
    yield "coded_twice", tokens.codes, _encode(codec, codec.decode(tokens)).codes


def _encode(codec: Codec, wave: Samples) -> Tokens:
    return codec.encode_chunks([wave], codec.sample_rate, len(wave), checked=True)


def stability_table(model: TokenStability) -> Rows:
    """Make the table of one model."""
    return [["% that stay", *CHANGES.values()], *model.rows()]


def stability_text(models: Sequence[TokenStability]) -> str:
    """Format the tables for a terminal, with a legend."""
    tables = (f"{model.heading}\n\n{as_text(stability_table(model))}" for model in models)
    return "\n\n".join([*tables, LEGEND])


def stability_csv(models: Sequence[TokenStability]) -> str:
    """Format the shares as CSV with a line per model, change and codebook."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        [
            *("system", "token_fingerprint", "change", "compared_frames"),
            *("codebook", "tokens", "bits"),
        ]
    )
    for model in models:
        for change in CHANGES:
            shares = model.shares(change)
            line = [model.system, model.fingerprint, change, model.frames[change]]
            for number in range(model.layout.num_codebooks):
                found = (shares[key] and shares[key][number] for key in ("codebooks", "bits"))
                writer.writerow([*line, number + 1, *found])
    return file.getvalue()
