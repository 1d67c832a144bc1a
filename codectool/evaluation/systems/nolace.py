"""Opus whose decoder enhances speech by the neural network NoLACE, part of libopus from 1.5 on."""

from __future__ import annotations

import ctypes
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import override

from codectool.audio.sink import audio_bytes
from codectool.errors import CodectoolError, UsageError
from codectool.evaluation.metrics.base import Wave
from codectool.evaluation.systems.external import ExternalCodec
from codectool.evaluation.systems.ogg import check_kbps, packets, payload_bits

RATE = 48000  # of the decoder, in Hz
MAX_PACKET_SAMPLES = RATE * 120 // 1000
LIBRARY = {"darwin": "libopus.0.dylib", "win32": "opus.dll"}.get(sys.platform, "libopus.so.0")
# Constants of opus_defines.h.
VOIP, SET_BITRATE, SET_BANDWIDTH, WIDEBAND, SET_COMPLEXITY = 2048, 4002, 4008, 1103, 4010
NOLACE_COMPLEXITY = 10  # of the decoder; NoLACE from 7 on
INSTALL = "install libopus 1.5 or later, configured with --enable-osce"


class OpusNolace(ExternalCodec):
    """Opus as `opusenc` encodes it in wide band, decoded by libopus with NoLACE.

    The library is the one that the system finds by its name. `opusdec` cannot switch NoLACE on.

    Args:
        kbps: value of `opusenc --bitrate`, in kbit/s.

    Raises:
        UsageError: the library is missing, is older than 1.5, or was built without NoLACE.
    """

    def __init__(self, kbps: str) -> None:
        check_kbps("opus-nolace", kbps)
        super().__init__(
            "opus-tools",
            # NoLACE works on wide-band speech only, which the encoder leaves at low rates
            f"opusenc --quiet --padding 0 --bitrate {kbps} --set-ctl-int "
            f"{SET_BANDWIDTH}={WIDEBAND} in.wav coded.opus",
            "",
            "coded.opus",
            payload_bits,
        )
        try:
            self._library = Libopus(ctypes.CDLL(LIBRARY))
        except OSError as error:
            raise UsageError(f"opus-nolace: {LIBRARY} is not installed; {INSTALL}") from error
        self.version = f"{self._library.version}, NoLACE"
        if not self._library.has_nolace():
            raise UsageError(f"opus-nolace: {self._library.version} has no NoLACE; {INSTALL}")

    @override
    def run_decoder(self, command: Sequence[str], folder: Path) -> float:
        started = time.process_time()
        head, _, *audio = packets((folder / self.coded).read_bytes())
        if len(audio) < 1 or not head.startswith(b"OpusHead") or head[9] != 1:
            raise CodectoolError("opusenc wrote no audio with one channel")
        wave = self._library.decode(audio, NOLACE_COMPLEXITY)
        seconds = time.process_time() - started
        skipped = int.from_bytes(head[10:12], "little")
        (folder / self.decoded).write_bytes(audio_bytes(wave[None, skipped:], RATE))
        return seconds


class Libopus:
    """The functions of libopus that are needed.

    Args:
        library: the loaded library.

    Attributes:
        version: such as ``libopus 1.5.2``.
    """

    def __init__(self, library: Any) -> None:
        self._library = library
        for name in ("opus_encoder_create", "opus_decoder_create"):
            getattr(library, name).restype = ctypes.c_void_p
        library.opus_get_version_string.restype = ctypes.c_char_p
        self.version = library.opus_get_version_string().decode("ascii", "replace")

    def has_nolace(self) -> bool:
        """Return whether the decoder's complexity changes decoded wide-band speech."""
        time = np.arange(RATE // 5) / 16000
        buzz = sum(np.sin(2 * math.pi * 150 * k * time) for k in range(1, 20)) / 40
        coded = self._encode(np.asarray(buzz, np.float32))
        try:
            enhanced = self.decode(coded, NOLACE_COMPLEXITY)
        except CodectoolError:  # before 1.5, the decoder has no complexity
            return False
        return not np.array_equal(self.decode(coded, 0), enhanced)

    def decode(self, packets: Sequence[bytes], complexity: int) -> Wave:
        """Decode packets with one channel to samples ``(N,)`` at 48 kHz.

        Raises:
            CodectoolError: a packet is damaged, or the decoder has no complexity.
        """
        decoder = ctypes.c_void_p(self._library.opus_decoder_create(RATE, 1, None))
        try:
            self._check(
                self._library.opus_decoder_ctl(decoder, SET_COMPLEXITY, ctypes.c_int(complexity))
            )
            decoded = []
            for packet in packets:
                wave = np.empty(MAX_PACKET_SAMPLES, np.float32)
                samples = self._check(
                    self._library.opus_decode_float(
                        decoder, packet, len(packet), _pointer(wave), len(wave), 0
                    )
                )
                decoded.append(wave[:samples])
        finally:
            self._library.opus_decoder_destroy(decoder)
        return np.concatenate(decoded)

    def _encode(self, wave: Wave) -> list[bytes]:
        """Encode samples ``(N,)`` at 16 kHz as wide-band speech at 9 kbit/s."""
        encoder = ctypes.c_void_p(self._library.opus_encoder_create(16000, 1, VOIP, None))
        for request, value in ((SET_BITRATE, 9000), (SET_BANDWIDTH, WIDEBAND)):
            self._check(self._library.opus_encoder_ctl(encoder, request, ctypes.c_int(value)))
        coded = []
        for start in range(0, len(wave) - 319, 320):
            packet = ctypes.create_string_buffer(1275)
            frame = wave[start : start + 320]
            size = self._check(
                self._library.opus_encode_float(encoder, _pointer(frame), 320, packet, 1275)
            )
            coded.append(packet.raw[:size])
        self._library.opus_encoder_destroy(encoder)
        return coded

    def _check(self, result: int) -> int:
        """Return the result of a function; raise if it is an error."""
        if result < 0:
            raise CodectoolError(f"{self.version} failed with error {result}")
        return result


def _pointer(wave: Wave) -> ctypes.c_void_p:
    return wave.ctypes.data_as(ctypes.c_void_p)
