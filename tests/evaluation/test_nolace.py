"""Opus with NoLACE: a fake of libopus, and what is installed."""

from __future__ import annotations

import ctypes
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codectool.errors import UsageError
from codectool.evaluation.systems import nolace
from codectool.evaluation.systems.nolace import Libopus
from codectool.evaluation.systems.spec import SystemSpec
from tests.evaluation.test_systems import syllables

UNIMPLEMENTED = -5
WIDE_BAND_SILK = range(8, 12)  # configurations of packets, RFC 6716, table 2


class Function:
    """A C function, whose result type can be set."""

    def __init__(self, call: Any) -> None:
        self.call = call

    def __call__(self, *arguments: Any) -> Any:
        return self.call(*arguments)


class FakeLibopus:
    """Decodes each packet to 20 ms of its size; louder with NoLACE."""

    def __init__(self, version: str, has_nolace: bool = True) -> None:
        self.has_complexity = version >= "libopus 1.5"
        self.has_nolace = has_nolace
        self.complexity = 0
        self.open = 0
        self.opus_get_version_string = Function(version.encode)
        for name in ("encoder_create", "encoder_destroy", "encoder_ctl", "encode_float"):
            setattr(self, f"opus_{name}", Function(getattr(self, name)))
        for name in ("decoder_create", "decoder_destroy", "decoder_ctl", "decode_float"):
            setattr(self, f"opus_{name}", Function(getattr(self, name)))

    def encoder_create(self, rate: int, channels: int, application: int, error: None) -> int:
        assert (rate, channels) == (16000, 1)
        self.open += 1
        return 1

    def decoder_create(self, rate: int, channels: int, error: None) -> int:
        assert (rate, channels) == (48000, 1)
        self.open += 1
        self.complexity = 0
        return 2

    def encoder_destroy(self, pointer: ctypes.c_void_p) -> None:
        self.open -= 1

    decoder_destroy = encoder_destroy

    def encoder_ctl(self, encoder: ctypes.c_void_p, request: int, value: ctypes.c_int) -> int:
        return 0

    def decoder_ctl(self, decoder: ctypes.c_void_p, request: int, value: ctypes.c_int) -> int:
        assert request == 4010
        self.complexity = value.value
        return 0 if self.has_complexity else UNIMPLEMENTED

    def encode_float(self, encoder: Any, wave: Any, samples: int, packet: Any, size: int) -> int:
        packet.raw = bytes([9 << 3] * 20)
        return 20

    def decode_float(
        self, decoder: Any, packet: bytes, size: int, wave: ctypes.c_void_p, samples: int, fec: int
    ) -> int:
        if packet[0] >> 3 not in WIDE_BAND_SILK:
            return -4
        enhanced = self.has_nolace and self.complexity >= 7
        values = np.full(960, (2 if enhanced else 1) * size / 1275, np.float32)
        assert samples >= 960
        ctypes.memmove(wave, values.ctypes.data, values.nbytes)
        return 960


def use(library: FakeLibopus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nolace.ctypes, "CDLL", lambda name: library)


def needs_opusenc() -> None:
    if not shutil.which("opusenc"):
        pytest.skip("opusenc is not installed")


def test_nolace_decodes_wide_band_packets_of_opusenc(monkeypatch: pytest.MonkeyPatch) -> None:
    needs_opusenc()
    library = FakeLibopus("libopus 1.5.2")
    use(library, monkeypatch)
    system = SystemSpec("x", "opus-nolace@6").load()
    assert system.version == "libopus 1.5.2, NoLACE"
    coded = system.code(syllables(2, 16000), 16000)
    assert coded.rate == 48000
    assert len(coded.wave) == pytest.approx(2 * 48000, abs=2 * 960)
    assert coded.wave.max() > 0, "packets are wide band, or the fake would refuse them"
    assert coded.cost.payload_bits / 2000 == pytest.approx(6, rel=0.5)
    assert (library.complexity, library.open) == (10, 0)


@pytest.mark.parametrize(
    ("library", "reason"),
    [
        (FakeLibopus("libopus 1.3.1"), "libopus 1.3.1 has no NoLACE"),
        (FakeLibopus("libopus 1.6.1", has_nolace=False), "libopus 1.6.1 has no NoLACE"),
    ],
)
def test_libopus_without_nolace_is_refused(
    library: FakeLibopus, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_opusenc()
    use(library, monkeypatch)
    with pytest.raises(UsageError, match=f"{reason}; install libopus 1.5 or later"):
        SystemSpec("x", "opus-nolace@6").load()


def test_missing_libopus_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    needs_opusenc()
    monkeypatch.setattr(nolace, "LIBRARY", "libno-such-opus.so.0")
    with pytest.raises(UsageError, match="libno-such-opus.so.0 is not installed"):
        SystemSpec("x", "opus-nolace@6").load()


def real_libraries() -> list[str]:
    """Return libopus of the system and the one inside PyAV."""
    spec = find_spec("av")
    folder = Path(spec.origin).parents[1] / "av.libs" if spec and spec.origin else Path()
    return ["libopus.so.0", *map(str, folder.glob("libopus-*"))]


@pytest.mark.parametrize("name", real_libraries())
def test_real_libopus_encodes_and_decodes(name: str) -> None:
    try:
        library = Libopus(ctypes.CDLL(name))
    except OSError as error:
        pytest.skip(str(error))
    assert library.version.startswith("libopus ")
    assert library.has_nolace() in (True, False)
    packets = library._encode(syllables(1, 16000))
    assert {packet[0] >> 3 for packet in packets} <= set(WIDE_BAND_SILK)
    if library.version >= "libopus 1.5":
        wave = library.decode(packets, 0)
        assert len(wave) == 48000
        assert 0.01 < np.abs(wave).max() < 1
