"""Two synthetic clips, and what bundled weights encode and decode them to.

``python tests/checkpoints/bundled_pins.py WEIGHTS...`` prints the token hashes and writes the audio
to ``tests/golden/bundled_audio.npz``. Run it for new weights only: a change of these numbers means
that existing files decode to something else.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

import codectool
from codectool.codec import Codec

GOLDEN_AUDIO = Path(__file__).parents[1] / "golden" / "bundled_audio.npz"
EVERY = 29  # one sample in 29 is kept; no divisor of the hop length, so all phases of a hop occur

# Sample rate in Hz, seconds, seed. The seeds were chosen so that no value whose sign is a bit lies
# within 1e-4 of zero for any of the weights: another CPU rounds differently by 1e-5 at most.
CLIPS = {"24k": (24000, 2.3, 0), "16k": (16000, 1.45, 1)}

Samples = npt.NDArray[np.float32]


def synthetic_speech(rate: int, seconds: float, seed: int) -> Samples:
    """Return voiced syllables with moving formants, and noise between them, ``(N,)``.

    Rounded to 16 bits, so that the samples do not depend on the rounding of sines.
    """
    random = np.random.RandomState(seed)  # its numbers never change, unlike those of a Generator
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


def main(paths: list[str]) -> None:
    audio = {}
    for path in paths:
        codec = codectool.load(checkpoint=path, device="cpu")
        for clip in CLIPS:
            name = f"{codec.fingerprint}-{clip}"
            digest, audio[name] = encode_and_decode(codec, clip)
            print(f'    "{name}": "{digest}",')
    np.savez_compressed(GOLDEN_AUDIO, **audio)


if __name__ == "__main__":
    main(sys.argv[1:])
