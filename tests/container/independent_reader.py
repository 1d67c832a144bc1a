"""An independent reader of `.hcd` files, written from docs/reference/file-format.md.

It uses only the standard library, raises an AssertionError for an invalid file, and is short and
slow.
"""

import binascii
import io
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

    def varint():
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
    flags, profile, fingerprint, code = number(), number(), take(4).hex(), number()
    assert flags < 64
    rate = RATES[code >> 4] or varint()
    channels = code & 15 or varint()
    if profile:
        family, model_rate, hop, widths = PROFILES[profile]
    else:
        code = number()
        names = {1: "hac", 2: "bigcodec", 3: "supercodec"}
        family = names[code >> 4] if code >> 4 else take(number()).decode("ascii")
        model_rate = RATES[code & 15] or varint()
        hop, codebooks, bits = varint(), varint(), number()
        widths = [bits] * codebooks if bits else list(take(codebooks))
    samples = varint() if flags & 1 else None
    extra = flags >> 4 & 3
    extra = varint() if extra == 3 else extra
    segment = varint() if flags & 4 else None
    default = min(ceil(24 * model_rate, hop), 1048576 // (channels * len(widths)))
    block = varint() if flags & 8 else default
    head = data[: file.tell()]
    s0 = number(4)
    assert binascii.crc_hqx(data[: file.tell()], 0xFFFF) == number(2), "header check"

    tags = {}
    while flags & 2 and (kind := number()):
        start = file.tell() - 1
        end = varint() + file.tell()
        while kind == 1 and file.tell() < end:
            key = take(varint()).decode()
            tags[key] = take(varint()).decode()
        file.seek(end)
        assert zlib.crc32(s0.to_bytes(4, "little") + data[start:end]) == number(4), "section check"

    codes = [[[] for _ in widths] for _ in range(channels)]

    def tokens(frames):
        size = ceil(frames * channels * sum(widths), 8)
        bits = "".join(f"{byte:08b}" for byte in take(size))
        for _ in range(frames):
            for channel in codes:
                for codebook, width in zip(channel, widths, strict=True):
                    codebook.append(int(bits[:width], 2))
                    bits = bits[width:]
        assert "1" not in bits, "padding"

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
        "segment": segment, "block": block, "tags": tags, "codes": codes,
    }  # fmt: skip
