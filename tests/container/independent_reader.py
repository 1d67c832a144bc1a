"""An independent reader of `.hcd` files, written from docs/reference/file-format.md.

It uses only the standard library, raises an AssertionError for an invalid file, and is short and
slow. It refuses everything that the document says a reader must refuse.
"""

import binascii
import io
import re
import zlib

RATES = [None, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000]
RATES += [88200, 96000, 176400, 192000]
PROFILES = {
    1: ("hac", 24000, 320, [18]),
    2: ("bigcodec", 16000, 200, [13]),
    3: ("supercodec", 16000, 320, [10, 10]),
    4: ("supercodec", 24000, 320, [10, 10]),
}


def ceil(a, b):
    return -(-a // b)


def read_hcd(data):
    file = io.BytesIO(data)

    def take(n):
        data = file.read(n)
        assert len(data) == n, "truncated"
        return data

    def number(n=1):
        return int.from_bytes(take(n), "little")

    def text_of(payload):
        size = varint(lambda: int.from_bytes(payload.read(1), "little"))
        text = payload.read(size)
        assert len(text) == size, "text"
        assert text.decode("utf-8", "replace").encode() == text, "not UTF-8"
        return text

    def varint(number=number):
        value, shift = 0, 0
        while True:
            byte = number()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                assert byte or shift == 7, "not the shortest form"
                return value
            assert shift < 63, "too long"

    assert take(4) == b"HCD\1"

    def rate_of(code):
        assert code < len(RATES), "reserved sampling rate"
        rate = RATES[code] or varint()
        assert 1 <= rate <= 10_000_000, "sampling rate"
        return rate

    flags, profile, fingerprint, code = number(), number(), take(4).hex(), number()
    assert flags < 64, "reserved flags"
    rate = rate_of(code >> 4)
    channels = code & 15 or varint()
    assert code & 15 or 16 <= channels <= 1024, "channels"
    if profile:
        assert profile in PROFILES, "reserved profile"
        family, model_rate, hop, widths = PROFILES[profile]
    else:
        code = number()
        assert code >> 4 < 4, "reserved family"
        name = b"" if code >> 4 else take(number())
        family = [name.decode("latin-1"), "hac", "bigcodec", "supercodec"][code >> 4]
        assert re.fullmatch("[a-z][a-z0-9-]{0,30}", family), "family"
        model_rate = rate_of(code & 15)
        hop, codebooks = varint(), varint()
        assert 1 <= codebooks <= 64, "codebooks"
        bits = number()
        widths = [bits] * codebooks if bits else list(take(codebooks))
        assert bits or len(set(widths)) > 1, "equal widths"
        assert 1 <= min(widths) <= max(widths) <= 24, "widths"
    assert 1 <= hop <= 65_536, "hop"
    assert hop * rate <= 65_536 * model_rate, "samples per frame"
    samples = varint() if flags & 1 else None
    extra = flags >> 4 & 3
    assert not extra or flags & 1, "extra frames without a length"
    if extra == 3:
        extra = varint()
        assert extra >= 3, "extra frames"
    segment = varint() if flags & 4 else None
    assert segment != 0, "segment"
    most = 1_048_576 // (channels * len(widths))
    default = min(ceil(24 * model_rate, hop), most)
    block = varint() if flags & 8 else default
    assert 1 <= block <= most, "block"
    assert not flags & 8 or block != default, "default block"
    head = data[: file.tell()]
    s0 = number(4)
    assert binascii.crc_hqx(data[: file.tell()], 0xFFFF) == number(2), "header check"

    tags, gain, kinds, sections_start = {}, 0, [], file.tell()
    while flags & 2 and (kind := number()):
        start, kinds = file.tell() - 1, [*kinds, kind]
        assert kind < 128, "critical section"
        assert kind > 2 or kinds.count(kind) == 1, "tags or gain again"
        assert len(kinds) <= 256, "number of sections"
        size = varint()
        assert size <= 65_536, "size of section"
        payload, end = io.BytesIO(take(size)), file.tell()
        assert zlib.crc32(s0.to_bytes(4, "little") + data[start:end]) == number(4), "section check"
        assert file.tell() - sections_start <= 1_048_576, "size of sections"
        if kind == 2:
            gain = int.from_bytes(payload.getvalue(), "little", signed=True)
            assert size == 2, "size of gain"
            assert abs(gain) <= 12_000, "gain"
        last = b""
        while kind == 1 and payload.tell() < size:
            key, value = text_of(payload), text_of(payload)
            assert key > last, "order of tags"
            tags[key.decode()], last = value.decode(), key

    codes = [[[] for _ in widths] for _ in range(channels)]

    def tokens(frames):
        size = ceil(frames * channels * sum(widths), 8)
        bits, left = int.from_bytes(take(size), "big"), 8 * size
        for _ in range(frames):
            for channel in codes:
                for codebook, width in zip(channel, widths, strict=True):
                    left -= width
                    codebook.append(bits >> left & (1 << width) - 1)
        assert not bits & (1 << left) - 1, "padding"

    def check(k, start):
        text = head + (s0.to_bytes(4, "little") if k else b"") + k.to_bytes(8, "little")
        found = zlib.crc32(text + data[start : file.tell()])
        assert found == (number(4) if k or start == final else s0), f"block {k}"

    def frames_of(samples):
        return ceil(ceil(samples * model_rate, rate), hop) + extra

    k, final = 0, None
    if samples is not None:
        left = frames_of(samples)
        while left or not k:
            start = file.tell()
            tokens(min(left, block))
            check(k, start)
            k, left = k + 1, left - min(left, block)
    while samples is None:
        start = file.tell()
        marker = number()
        assert marker == 1 or (marker == 2 and k), "marker"
        if marker == 1:
            tokens(block)
            check(k, start + 1)
            k += 1
        else:
            final, samples, extra = start, varint(), varint()
            rest = frames_of(samples) - k * block
            assert 0 <= rest < block
            tokens(rest)
            check(k, start)
    assert not file.read(1), "trailing data"
    return {
        "family": family, "model_rate": model_rate, "hop": hop, "bits_per_codebook": widths,
        "fingerprint": fingerprint, "input_rate": rate, "samples": samples, "extra": extra,
        "segment": segment, "block": block, "tags": tags, "gain": gain / 100,
        "codes": codes,
    }  # fmt: skip
