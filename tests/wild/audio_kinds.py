"""Write audio files of many kinds with ffmpeg, lame, flac, oggenc, opusenc and sox.

Each kind is written `CLIPS` times, with clips of different length, sampling rate, number of
channels and content. `KINDS` lists the kinds by name.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import soundfile

from codectool.audio.samples import resample
from tests.signals import speechlike

PROGRAMS = ("ffmpeg", "lame", "flac", "oggenc", "opusenc", "sox")
ASSET = Path(__file__).parents[2] / "assets" / "speech_espeak.flac"
CLIPS = 14  # per kind
SECONDS = (0.05, 0.1, 0.31, 0.5, 0.77, 1.0, 1.23, 1.5, 1.9, 2.4, 3.1, 4.2, 0.6, 10.0)
RATES = (16000, 8000, 22050, 24000, 44100, 48000, 11025, 32000, 12000)
MPEG1, MPEG2, MPEG25 = (32000, 44100, 48000), (16000, 22050, 24000), (8000, 11025, 12000)
STEREO = (1, 2, 1, 1, 2)

Writer = Callable[[list[Path], list[Path]], None]  # WAV files to read, files to write


@dataclass(frozen=True)
class Wave:
    """Samples ``(N, channels)`` and their rate in Hz."""

    samples: np.ndarray
    rate: int


@dataclass(frozen=True)
class Kind:
    """A kind of audio file.

    Attributes:
        suffix: of the files.
        write: writes one file per clip.
        rates: sampling rates in Hz, used in turn.
        channels: numbers of channels, used in turn.
        change: changes the bytes of each file.
        joined: whether each file is followed by another one.
        reference: what the samples are compared with. "ffmpeg", "sox": the program reads the file;
            "original": ffmpeg reads the files before they are changed and joined; "trimmed": the
            same, cut to the length of the source, or continued with NaN; "source": the samples
            that were encoded.
        decoder: decoder that ffmpeg uses; empty for its own.
        damaged: whether audio is missing, so that the reader must warn or refuse.
        concealed: samples at the start that lack data, which decoders replace in different ways.
        may_refuse: why the reader may refuse an intact file; empty if it must read it.
    """

    suffix: str
    write: Writer
    rates: Sequence[int] = RATES
    channels: Sequence[int] = STEREO
    change: Callable[[bytes], bytes] | None = None
    joined: bool = False
    reference: str = "ffmpeg"
    decoder: str = ""
    damaged: bool = False
    concealed: int = 0
    may_refuse: str = ""


def write_kind(kind: Kind, folder: Path) -> tuple[list[Path], list[Wave | None]]:
    """Write the files of a kind.

    Returns:
        The paths, and what each file holds; None if ffmpeg cannot read it.
    """
    forms = [
        (kind.rates[number % len(kind.rates)], kind.channels[number % len(kind.channels)])
        for number in range(CLIPS)
    ]
    sources = [folder / f"source{number}.wav" for number in range(CLIPS)]
    outputs = [folder / f"{number}{kind.suffix}" for number in range(CLIPS)]
    for number, (rate, channels) in enumerate(forms):
        soundfile.write(sources[number], clip(number, rate, channels).T, rate, "PCM_16")
    kind.write(sources, outputs)
    if kind.reference == "sox":
        expected = [_decode_with_sox(output) for output in outputs]
    else:
        read = sources if kind.reference == "source" else outputs
        expected = decode_with_ffmpeg(read, kind.decoder)
    if kind.reference == "trimmed":
        lengths = [soundfile.info(source).frames for source in sources]
        expected = [_trim(wave, length) for wave, length in zip(expected, lengths, strict=True)]
    contents = [output.read_bytes() for output in outputs]
    if kind.joined:
        next_ones = [_next_equal(forms, number) for number in range(CLIPS)]
        contents = [contents[number] + contents[other] for number, other in enumerate(next_ones)]
        expected = [
            _join(expected[number], expected[other]) for number, other in enumerate(next_ones)
        ]
    if kind.change is not None:
        contents = list(map(kind.change, contents))
    if kind.joined or kind.change is not None:
        for output, data in zip(outputs, contents, strict=True):
            output.write_bytes(data)
        if kind.reference == "ffmpeg" and not kind.damaged:
            expected = decode_with_ffmpeg(outputs, kind.decoder)
    return outputs, expected


def _trim(wave: Wave | None, length: int) -> Wave | None:
    if wave is None:
        return None
    samples = np.full((length, wave.samples.shape[1]), np.nan, np.float32)
    samples[: len(wave.samples)] = wave.samples[:length]
    return Wave(samples, wave.rate)


def _next_equal(values: list[tuple[int, int]], index: int) -> int:
    """Return where the value at ``index`` comes next; ``index`` if it does not."""
    following = values[index + 1 :]
    return index + 1 + following.index(values[index]) if values[index] in following else index


def _join(first: Wave | None, second: Wave | None) -> Wave | None:
    if first is None or second is None:
        return None
    return Wave(np.concatenate([first.samples, second.samples]), first.rate)


def clip(number: int, rate: int, channels: int) -> np.ndarray:
    """Return a clip ``(channels, N)``: speech, or a synthetic signal."""
    seconds = SECONDS[number % len(SECONDS)]
    if number % 3 == 0:
        return speechlike(seconds, rate, channels)
    length = round(seconds * rate)
    wave = _speech(rate)
    start = (number * 7919) % (wave.shape[1] - 1)
    mono = np.tile(wave, 4)[:, start : start + length]
    return np.repeat(mono, channels, axis=0) * np.linspace(1, 0.5, channels)[:, None]


@cache
def _speech(rate: int) -> np.ndarray:
    samples, stored_rate = soundfile.read(ASSET, dtype="float32", always_2d=True)
    return np.clip(resample(np.ascontiguousarray(samples.T), stored_rate, rate), -1, 1)


def decode_with_ffmpeg(paths: Sequence[Path], decoder: str = "") -> list[Wave | None]:
    """Return what ffmpeg reads; None for files that it cannot read."""
    folder = paths[0].parent / "decoded"
    folder.mkdir(exist_ok=True)
    # AU states rate and channels in its first 24 bytes
    outputs = [folder / f"{path.name}.au" for path in paths]
    choice = ("-c:a", decoder) if decoder else ()
    inputs = [argument for path in paths for argument in (*choice, "-i", path)]
    if _ffmpeg(*inputs, *_to_au(*outputs), check=False):
        for path, output in zip(paths, outputs, strict=True):
            output.unlink(missing_ok=True)
            _ffmpeg(*choice, "-i", path, *_to_au(output), check=False)
    return [_read_au(output) for output in outputs]


def _decode_with_sox(path: Path) -> Wave | None:
    _run("sox", path, path.with_suffix(".wav"))
    samples, rate = soundfile.read(path.with_suffix(".wav"), dtype="float32", always_2d=True)
    return Wave(samples, rate)


def _to_au(*outputs: Path) -> list[str | Path]:
    options = ("-c:a", "pcm_f32be")
    maps = [("-map", f"{index}:a:0", *options, path) for index, path in enumerate(outputs)]
    return [argument for arguments in maps for argument in arguments]


def _read_au(path: Path) -> Wave | None:
    data = path.read_bytes() if path.exists() else b""
    path.unlink(missing_ok=True)
    if len(data) < 24:
        return None
    _, start, _, _, rate, channels = struct.unpack(">6I", data[:24])
    samples = np.frombuffer(data, ">f4", offset=start).reshape(-1, channels)
    return Wave(samples.astype(np.float32), rate)


def _ffmpeg(*arguments: str | Path, check: bool = True) -> int:
    command = ["ffmpeg", "-nostdin", "-v", "quiet", "-y", *arguments]
    return subprocess.run(command, check=check).returncode


def _run(*command: str | Path, stdin: bytes | None = None) -> bytes:
    """Return what a program writes to a pipe."""
    quiet = subprocess.DEVNULL
    given = {"stdin": quiet} if stdin is None else {"input": stdin}
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=quiet, **given).stdout


# --------------------------------------------------------------------------------- writers


def ffmpeg(*options: str) -> Writer:
    """Write all files with one call of ffmpeg."""

    def write(sources: list[Path], outputs: list[Path]) -> None:
        inputs = [argument for source in sources for argument in ("-i", source)]
        results = [
            argument
            for index, output in enumerate(outputs)
            for argument in ("-map", f"{index}:a:0", *options, output)
        ]
        _ffmpeg(*inputs, *results)

    return write


def ffmpeg_pipe(*options: str) -> Writer:
    """Write to a pipe, where ffmpeg cannot go back to the header."""

    def write(sources: list[Path], outputs: list[Path]) -> None:
        # /dev/fd/N of pipes that `cat` empties: one call of ffmpeg for all files
        cats, inputs, results, ends = [], [], [], []
        for index, (source, output) in enumerate(zip(sources, outputs, strict=True)):
            with output.open("wb") as file:
                cat = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=file)
            assert cat.stdin is not None
            cats.append(cat)
            ends.append(cat.stdin.fileno())
            inputs += ["-i", source]
            results += ["-map", f"{index}:a:0", *options, f"pipe:{cat.stdin.fileno()}"]
        command = ["ffmpeg", "-nostdin", "-v", "quiet", *inputs, *results]
        subprocess.run(command, check=True, pass_fds=ends)
        for cat in cats:
            cat.communicate()

    return write


def each(*command: str) -> Writer:
    """Run a command per file; IN and OUT stand for the paths, without OUT it writes to a pipe."""

    def write(sources: list[Path], outputs: list[Path]) -> None:
        for source, output in zip(sources, outputs, strict=True):
            paths = {"IN": source, "OUT": output}
            printed = _run(*(paths.get(word, word) for word in command))
            if "OUT" not in command:
                output.write_bytes(printed)

    return write


# --------------------------------------------------------------------------------- changes


def cut(data: bytes) -> bytes:
    """Keep 60 % of a file."""
    return data[: len(data) * 6 // 10]


def from_the_middle(data: bytes) -> bytes:
    """Drop the beginning, up to the middle of a frame, as a recording of a radio stream."""
    return data[len(data) // 3 + 7 :]


def _size_field(value: int) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        at = data.index(b"data") + 4
        riff = struct.pack("<I", value)
        return data[:4] + riff + data[8:at] + riff + data[at + 4 :]

    return change


def _list_at_end(data: bytes) -> bytes:
    tail = b"LIST" + struct.pack("<I", 26) + b"INFOISFT" + struct.pack("<I", 14) + b"codectool test"
    size = struct.pack("<I", len(data) + len(data) % 2 + len(tail) - 8)
    return data[:4] + size + data[8:] + b"\0" * (len(data) % 2) + tail


def _junk_first(data: bytes) -> bytes:
    chunks = b"JUNK" + struct.pack("<I", 28) + bytes(28) + b"bext" + struct.pack("<I", 603)
    chunks += bytes(604)  # odd size: one byte of padding
    size = struct.pack("<I", len(data) + len(chunks) - 8)
    return data[:4] + size + data[8:12] + chunks + data[12:]


def _padded_for_mac(data: bytes) -> bytes:
    """Move the samples to 4096, as Pro Tools and macOS do with a FLLR chunk."""
    at = data.index(b"data")
    filler = 4096 - at - 16
    chunk = b"FLLR" + struct.pack("<I", filler) + bytes(filler)
    size = struct.pack("<I", len(data) + len(chunk) - 8)
    return data[:4] + size + data[8:at] + chunk + data[at:]


def _id3v2(data: bytes) -> bytes:
    """Put a tag with a picture before the audio that holds the mark of a frame of MP3."""
    picture = b"\0image/jpeg\0\3\0" + b"\xff\xfb\x90\x64" * 700
    frame = b"APIC" + struct.pack(">I", len(picture)) + b"\0\0" + picture
    size = len(frame)
    sizes = bytes((size >> shift) & 127 for shift in (21, 14, 7, 0))
    return b"ID3\x03\0\0" + sizes + frame + data


def _id3v1(data: bytes) -> bytes:
    return data + b"TAG" + b"title".ljust(125, b"\0")


def _ape_tag(data: bytes) -> bytes:
    item = struct.pack("<II", 5, 0) + b"Title\0title"
    numbers = struct.pack("<IIII", 2000, len(item) + 32, 1, 0) + bytes(8)
    return data + item + b"APETAGEX" + numbers


def _both_tags(data: bytes) -> bytes:
    return _id3v1(_ape_tag(_id3v2(data)))


# ----------------------------------------------------------------------------------- kinds

_wav = ffmpeg("-c:a", "pcm_s16le")
_lame_cbr = each("lame", "--quiet", "-b", "128", "IN", "OUT")
_lame_cbr_bare = each("lame", "--quiet", "-t", "-b", "128", "IN", "OUT")
_lame_vbr = each("lame", "--quiet", "-V", "4", "IN", "OUT")
_lame_vbr_bare = each("lame", "--quiet", "-t", "-V", "4", "IN", "OUT")
_oggenc = each("oggenc", "--quiet", "-o", "OUT", "IN")
_opusenc = each("opusenc", "--quiet", "IN", "OUT")
_flac = each("flac", "--silent", "-o", "OUT", "IN")
_m4a = ffmpeg("-c:a", "aac", "-b:a", "64k")
_ONE_FRAME = "a single frame, of 0.05 s, is not recognised"
_PACKED = (8000,)  # rates of codecs for telephony

KINDS = {
    # WAV and its relatives
    "wav_u8": Kind(".wav", ffmpeg("-c:a", "pcm_u8")),
    "wav_s16": Kind(".wav", _wav),
    "wav_s24": Kind(".wav", ffmpeg("-c:a", "pcm_s24le")),
    "wav_s32": Kind(".wav", ffmpeg("-c:a", "pcm_s32le")),
    "wav_f32": Kind(".wav", ffmpeg("-c:a", "pcm_f32le")),
    "wav_f64": Kind(".wav", ffmpeg("-c:a", "pcm_f64le")),
    "wav_six_channels": Kind(".wav", _wav, channels=(6, 3)),
    "wav_alaw": Kind(".wav", ffmpeg("-c:a", "pcm_alaw")),
    "wav_ulaw": Kind(".wav", ffmpeg("-c:a", "pcm_mulaw")),
    "wav_adpcm_ms": Kind(".wav", ffmpeg("-c:a", "adpcm_ms")),
    "wav_adpcm_ima": Kind(".wav", ffmpeg("-c:a", "adpcm_ima_wav")),
    "wav_gsm": Kind(".wav", ffmpeg("-c:a", "libgsm_ms"), _PACKED, (1,)),
    "wav_gsm_sox": Kind(".wav", each("sox", "IN", "-e", "gsm-full-rate", "OUT"), _PACKED, (1,)),
    "wav_sox_24": Kind(".wav", each("sox", "IN", "-b", "24", "OUT")),
    "wav_ffmpeg_pipe": Kind(".wav", ffmpeg_pipe("-f", "wav")),
    "wav_ffmpeg_pipe_f32": Kind(".wav", ffmpeg_pipe("-c:a", "pcm_f32le", "-f", "wav")),
    "wav_sox_pipe": Kind(".wav", each("sox", "IN", "-t", "wav", "-")),
    "wav_size_0": Kind(".wav", _wav, change=_size_field(0), reference="original"),
    "wav_size_minus_1": Kind(".wav", _wav, change=_size_field(0xFFFFFFFF), reference="original"),
    "wav_list_at_end": Kind(".wav", _wav, change=_list_at_end, reference="original"),
    "wav_junk_first": Kind(".wav", _wav, change=_junk_first, reference="original"),
    "wav_mac_padding": Kind(".wav", _wav, change=_padded_for_mac, reference="original"),
    "wav_cut": Kind(".wav", _wav, damaged=True, change=cut),
    "wav_s24_cut": Kind(".wav", ffmpeg("-c:a", "pcm_s24le"), damaged=True, change=cut),
    "wav_mp3": Kind(".wav", ffmpeg("-c:a", "libmp3lame"), MPEG1),
    "wav_mp3_cut": Kind(".wav", ffmpeg("-c:a", "libmp3lame"), MPEG1, damaged=True, change=cut),
    "rf64": Kind(".rf64", ffmpeg("-rf64", "always", "-f", "wav")),
    # ffmpeg reads 0 samples of this RF64, and cannot read the W64 that it writes to a pipe
    "rf64_pipe": Kind(".rf64", ffmpeg_pipe("-rf64", "always", "-f", "wav"), reference="source"),
    "w64": Kind(".w64", ffmpeg("-c:a", "pcm_s16le")),
    "w64_sox": Kind(".w64", each("sox", "IN", "OUT")),
    "w64_pipe": Kind(".w64", ffmpeg_pipe("-f", "w64"), reference="source"),
    "w64_cut": Kind(".w64", ffmpeg(), damaged=True, change=cut),
    # AIFF, AU, CAF, SPH and others
    "aiff": Kind(".aiff", ffmpeg("-c:a", "pcm_s16be")),
    "aiff_24": Kind(".aiff", ffmpeg("-c:a", "pcm_s24be")),
    "aiff_sox": Kind(".aiff", each("sox", "IN", "OUT")),
    "aiff_pipe": Kind(".aiff", each("sox", "IN", "-t", "aiff", "-")),
    "aiff_cut": Kind(".aiff", ffmpeg(), damaged=True, change=cut),
    "aifc": Kind(".aifc", each("sox", "IN", "OUT")),
    "aifc_ulaw": Kind(".aifc", ffmpeg("-c:a", "pcm_mulaw", "-f", "aiff")),
    "au": Kind(".au", ffmpeg("-c:a", "pcm_s16be")),
    "au_ulaw": Kind(".au", ffmpeg("-c:a", "pcm_mulaw")),
    "au_pipe": Kind(".au", ffmpeg_pipe("-f", "au")),
    "au_sox_pipe": Kind(".au", each("sox", "IN", "-t", "au", "-")),
    "au_cut": Kind(".au", ffmpeg(), damaged=True, change=cut),
    "caf": Kind(".caf", ffmpeg("-c:a", "pcm_s16le")),
    "caf_pipe": Kind(".caf", ffmpeg_pipe("-c:a", "pcm_s16le", "-f", "caf")),
    "caf_cut": Kind(".caf", ffmpeg("-c:a", "pcm_s16le"), damaged=True, change=cut),
    "sph": Kind(".sph", each("sox", "IN", "OUT")),
    "sph_ulaw": Kind(".sph", each("sox", "IN", "-e", "u-law", "OUT")),
    "sph_cut": Kind(".sph", each("sox", "IN", "OUT"), damaged=True, change=cut),
    # ffmpeg reads 2 or 4 samples too few
    "voc": Kind(".voc", each("sox", "IN", "OUT"), reference="source"),
    # FLAC
    "flac": Kind(".flac", _flac),
    "flac_ffmpeg": Kind(".flac", ffmpeg("-c:a", "flac")),
    "flac_ffmpeg_pipe": Kind(".flac", ffmpeg_pipe("-f", "flac")),
    "flac_pipe": Kind(".flac", each("flac", "--silent", "--stdout", "IN")),
    "flac_cut": Kind(".flac", _flac, damaged=True, change=cut),
    "flac_pipe_cut": Kind(".flac", ffmpeg_pipe("-f", "flac"), damaged=True, change=cut),
    "flac_id3v2": Kind(".flac", _flac, change=_id3v2, reference="original"),
    "flac_ogg": Kind(".oga", each("flac", "--silent", "--ogg", "-o", "OUT", "IN")),
    "flac_ogg_ffmpeg": Kind(".ogg", ffmpeg("-c:a", "flac")),
    # Ogg Vorbis and Opus
    # ffmpeg 5.1 reads up to 224 samples too many or 128 too few
    "vorbis": Kind(".ogg", _oggenc, reference="trimmed"),
    "vorbis_ffmpeg": Kind(".ogg", ffmpeg("-c:a", "libvorbis"), reference="trimmed"),
    "vorbis_chained": Kind(".ogg", _oggenc, joined=True, reference="trimmed"),
    "vorbis_cut": Kind(".ogg", _oggenc, damaged=True, change=cut),
    "opus": Kind(".opus", _opusenc, decoder="libopus"),
    "opus_ffmpeg": Kind(".ogg", ffmpeg("-c:a", "libopus"), decoder="libopus"),
    "opus_pipe": Kind(".opus", each("opusenc", "--quiet", "IN", "-"), decoder="libopus"),
    "opus_chained": Kind(".opus", _opusenc, joined=True, reference="original", decoder="libopus"),
    "opus_cut": Kind(".opus", _opusenc, damaged=True, change=cut),
    # MP3
    "mp3_cbr": Kind(".mp3", _lame_cbr, MPEG1),
    "mp3_vbr": Kind(".mp3", _lame_vbr, MPEG1),
    "mp3_abr": Kind(".mp3", each("lame", "--quiet", "--abr", "128", "IN", "OUT"), MPEG1),
    "mp3_cbr_without_tag": Kind(".mp3", _lame_cbr_bare, MPEG1),
    "mp3_vbr_without_tag": Kind(".mp3", _lame_vbr_bare, MPEG1),
    "mp3_abr_without_tag": Kind(
        ".mp3", each("lame", "--quiet", "-t", "--abr", "128", "IN", "OUT"), MPEG1
    ),
    "mp3_ffmpeg": Kind(".mp3", ffmpeg("-c:a", "libmp3lame", "-q:a", "5"), MPEG1),
    "mp3_ffmpeg_pipe": Kind(".mp3", ffmpeg_pipe("-q:a", "5", "-f", "mp3"), MPEG1),
    "mp3_lame_pipe": Kind(".mp3", each("lame", "--quiet", "-V", "4", "IN", "-"), MPEG1),
    "mp3_sox": Kind(".mp3", each("sox", "IN", "OUT"), MPEG1),
    "mp3_joined": Kind(".mp3", _lame_cbr, MPEG1, joined=True),
    "mp3_joined_vbr": Kind(".mp3", _lame_vbr, MPEG1, joined=True),
    "mp3_joined_without_tag": Kind(".mp3", _lame_vbr_bare, MPEG1, joined=True),
    "mp3_cut": Kind(".mp3", _lame_cbr, MPEG1, damaged=True, change=cut),
    "mp3_vbr_cut": Kind(".mp3", _lame_vbr, MPEG1, damaged=True, change=cut),
    "mp3_mid_frame": Kind(
        ".mp3", _lame_cbr_bare, MPEG1, change=from_the_middle, concealed=4 * 1152
    ),
    "mp3_id3v2": Kind(".mp3", _lame_vbr, MPEG1, change=_id3v2, reference="original"),
    "mp3_id3v1": Kind(".mp3", _lame_cbr, MPEG1, change=_id3v1, reference="original"),
    "mp3_ape": Kind(".mp3", _lame_vbr, MPEG1, change=_ape_tag, reference="original"),
    "mp3_tags_without_xing": Kind(
        ".mp3", _lame_vbr_bare, MPEG1, change=_both_tags, reference="original"
    ),
    "mp3_mpeg2": Kind(".mp3", _lame_vbr, MPEG2),
    "mp3_mpeg2_without_tag": Kind(".mp3", _lame_vbr_bare, MPEG2),
    "mp3_mpeg25": Kind(".mp3", _lame_vbr, MPEG25),
    "mp3_mpeg25_without_tag": Kind(".mp3", _lame_vbr_bare, MPEG25),
    "mp2": Kind(".mp2", ffmpeg("-c:a", "mp2"), MPEG1 + MPEG2),
    # what libsndfile does not read
    "m4a": Kind(".m4a", _m4a),
    "m4a_fragmented": Kind(
        ".m4a", ffmpeg_pipe("-c:a", "aac", "-movflags", "empty_moov", "-f", "mp4")
    ),
    "m4a_cut": Kind(
        ".m4a", ffmpeg("-c:a", "aac", "-movflags", "faststart"), change=cut, damaged=True
    ),
    "alac": Kind(".m4a", ffmpeg("-c:a", "alac")),
    "mp4_mp3": Kind(".mp4", ffmpeg("-c:a", "libmp3lame"), MPEG1),
    "m4a_eight_channels": Kind(".m4a", _m4a, (48000, 44100), (8,)),
    "alac_eight_channels": Kind(".m4a", ffmpeg("-c:a", "alac"), (48000, 44100), (8,)),
    "mov_pcm": Kind(".mov", ffmpeg("-c:a", "pcm_s16be")),
    # at other rates, ffmpeg does not skip the whole delay; see test_formats.py
    "mp4_opus": Kind(".mp4", ffmpeg("-c:a", "libopus"), (48000,)),
    "mkv_flac": Kind(".mkv", ffmpeg("-c:a", "flac")),
    "caf_alac": Kind(".caf", ffmpeg("-c:a", "alac")),
    "speex": Kind(".spx", ffmpeg("-c:a", "libspeex"), (8000, 16000, 32000), (1,)),
    "aac_adts": Kind(".aac", ffmpeg("-c:a", "aac")),
    "webm": Kind(".webm", ffmpeg("-c:a", "libopus")),
    "webm_pipe": Kind(".webm", ffmpeg_pipe("-c:a", "libopus", "-f", "webm")),
    "mka_vorbis": Kind(".mka", ffmpeg("-c:a", "libvorbis")),
    "wma": Kind(".wma", ffmpeg("-c:a", "wmav2"), MPEG1),
    # ffmpeg skips frames of silence
    "amr_nb": Kind(
        ".amr", each("sox", "IN", "-t", "amr-nb", "OUT"), _PACKED, (1,), reference="sox"
    ),
    "ac3": Kind(".ac3", ffmpeg("-c:a", "ac3"), MPEG1),
    "eac3": Kind(".eac3", ffmpeg("-c:a", "eac3"), MPEG1),
    "dts": Kind(
        ".dts", ffmpeg("-c:a", "dca", "-strict", "-2"), (44100, 48000), (2,), may_refuse=_ONE_FRAME
    ),
    "wavpack": Kind(".wv", ffmpeg("-c:a", "wavpack")),
    "tta": Kind(".tta", ffmpeg("-c:a", "tta")),
}


def missing_programs() -> list[str]:
    """Return the programs that are not installed."""
    return [program for program in PROGRAMS if shutil.which(program) is None]
