"""Two synthetic clips, and the tokens and audio that bundled weights produce for them.

``python -m tests.checkpoints.bundled_pins`` prints the token hashes and writes the audio to
``tests/golden/bundled_audio.npz``. Run it only to add weights: if a number of existing weights
changes, existing files decode to different audio.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

import codectool
from codectool.checkpoints import registry
from codectool.codec import Codec

GOLDEN_AUDIO = Path(__file__).parents[1] / "golden" / "bundled_audio.npz"
EVERY = 29  # keep one sample in 29, which is coprime to the hop length

# Sample rate in Hz, seconds, seed. The seeds were chosen so that, for all weights, the values whose
# signs are the bits are at least 1e-4 away from zero. Rounding on another CPU differs by less.
CLIPS = {"24k": (24000, 2.3, 0), "16k": (16000, 1.45, 1)}

Samples = npt.NDArray[np.float32]


def synthetic_speech(rate: int, seconds: float, seed: int) -> Samples:
    """Return voiced syllables with moving formants, and noise between them, ``(N,)``.

    Rounded to 16 bits, so that the samples do not depend on the rounding of sines.
    """
    random = np.random.RandomState(seed)  # frozen by NumPy, unlike Generator
    time = np.arange(int(seconds * rate)) / rate
    offsets = random.uniform(0, 2 * np.pi, 4)
    pitch = 140 + 40 * np.sin(2 * np.pi * 0.9 * time + offsets[0])
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    formants = (
        (550 + 250 * np.sin(2 * np.pi * 2.1 * time + offsets[1]), 1.0),
        (1500 + 600 * np.sin(2 * np.pi * 1.7 * time + offsets[2]), 0.5),
        (2700 + 200 * np.sin(2 * np.pi * 1.1 * time + offsets[3]), 0.25),
    )
    voice = np.zeros_like(time)
    for number in range(1, 30):
        frequency = number * pitch
        gain = sum(size * np.exp(-(((frequency - f) / 200) ** 2)) for f, size in formants)
        voice += (0.02 + gain) / number**0.5 * np.sin(number * phase) * (frequency < 0.45 * rate)
    syllables = np.sin(2 * np.pi * 2.3 * time + offsets[0])
    noise = np.diff(random.normal(size=len(time) + 1))
    wave = voice * np.clip(syllables, 0, 1) ** 0.5 + 0.1 * noise * np.clip(-syllables - 0.6, 0, 1)
    wave += 1e-3 * random.normal(size=len(time))
    return (np.round(wave / np.abs(wave).max() * 0.6 * 32767) / 32768).astype(np.float32)


def encode_and_decode(codec: Codec, clip: str) -> tuple[str, Samples]:
    """Return the SHA-256 of the int32 tokens of a clip, and every 29th decoded sample."""
    rate, seconds, seed = CLIPS[clip]
    tokens = codec.encode(synthetic_speech(rate, seconds, seed), rate)
    codes = np.ascontiguousarray(tokens.codes, dtype="<i4")
    return hashlib.sha256(codes.tobytes()).hexdigest(), codec.decode(tokens)[0, ::EVERY]


def bundled_entries() -> list[registry.ModelEntry]:
    """Return the models whose weights are in this checkout."""
    return [entry for entry in registry.entries().values() if entry.is_bundled]


def main() -> None:
    audio = {}
    for entry in bundled_entries():
        codec = codectool.load(checkpoint=entry.locate(), device="cpu")
        for clip in CLIPS:
            name = f"{codec.fingerprint}-{clip}"
            digest, audio[name] = encode_and_decode(codec, clip)
            print(f'    "{name}": "{digest}",')
    np.savez_compressed(GOLDEN_AUDIO, **audio)


if __name__ == "__main__":
    main()
