"""Write `tests/corpus`: small valid inputs of every kind, and known attacks, for the fuzzers.

Run `python -m tests.fuzz.make_corpus` after a new kind of input was added; findings of the fuzzers
are put beside them by hand.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import soundfile
import torch
from safetensors.torch import save

from tests.container.hcd_samples import SAMPLES
from tests.fuzz.mutants import mutant

CORPUS = Path(__file__).parents[1] / "corpus"
CONFIGS = Path(__file__).parents[2] / "codectool" / "configs"


def saved(content: object, old: bool = False) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not old)
    return file.getvalue()


def pickle_of(checkpoint: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(checkpoint)) as archive:
        return archive.read("archive/data.pkl")


def checkpoints() -> dict[str, bytes]:
    weight = torch.arange(4.0)
    state = {"model.CodecEnc.w": weight, "model.generator.v": weight.reshape(2, 2).t()}
    optimizer = {
        "state": {0: {"step": 1, "exp_avg": weight}},
        "param_groups": [{"betas": (0.9, 1)}],
    }
    return {
        "lightning": saved({"state_dict": state, "optimizer_states": [optimizer], "epoch": 3}),
        "bigcodec": saved({"CodecEnc": {"w": weight}, "generator": {"v": weight}}),
        "supercodec": saved({"generator": {"w": torch.nn.Parameter(weight)}}),
        "run": saved({"format": 2, "trainer": {"model": state, "steps": 1 << 40}}),
        "half": saved({"generator": {"w": weight.half(), "v": weight.bfloat16()}}),
    }


def safetensors(config: object) -> bytes:
    return save({"w": torch.zeros(2)}, {"codectool": json.dumps(config)})


def sounds() -> dict[str, bytes]:
    samples = (np.sin(np.arange(400) / 5) * 0.3).astype(np.float32)
    kinds = {
        "wav": ("WAV", "PCM_16"), "float": ("WAV", "FLOAT"), "adpcm": ("WAV", "MS_ADPCM"),
        "rf64": ("RF64", "PCM_16"), "w64": ("W64", "PCM_24"), "aiff": ("AIFF", "PCM_16"),
        "au": ("AU", "ULAW"), "caf": ("CAF", "PCM_16"), "flac": ("FLAC", "PCM_16"),
        "vorbis": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS"), "mp3": ("MP3", "MPEG_LAYER_III"),
    }  # fmt: skip
    found = {}
    for name, (form, subtype) in kinds.items():
        file = io.BytesIO()
        soundfile.write(file, samples, 8000, subtype, format=form)
        found[name] = file.getvalue()
    wav = found["wav"]
    found["wav-size-0"] = wav[:40] + bytes(4) + wav[44:]
    found["wav-size-minus-1"] = wav[:4] + b"\xff" * 4 + wav[8:40] + b"\xff" * 4 + wav[44:]
    found["chained"] = found["vorbis"] + found["opus"]
    return found


LISTS = {
    "plain": b"a.wav\n# comment\n\nb c.wav\n",
    "lengths": b"a.wav\t24000\t16000\nb.wav\t9\t8000\n",
    "bars": b"LJ001|a text\n1|b.wav\n",
    "nul": b"a.wav\0b\nc.wav\0",
    "objects": b'{"path": "a.wav", "num_samples": 9, "sample_rate": 8000}\n{"path": "b"}\n',
    "utf16": "a.wav\n".encode("utf-16"),
    "mark": b"\xef\xbb\xbfa.wav\n",
}
PICKLES = {
    "tuple-key": b"\x80\4}K\1" + b"2\x86" * 30 + b"Ns.",
    "frozenset-key": b"\x80\4}(((K\1\x912\x86\x912\x86\x91Ns.",
    "size-of-bytes": b"\x80\4C\4abcd\x940ctorch\nSize\n\x940" + b"h\1h\0\x85R" * 3 + b".",
    "instance": b"\x80\2ccollections\nOrderedDict\n)R}b.",
    "new": b"\x80\4\x8c\5yours\x8c\1C\x93)\x81}\x92.",
}


def write(folder: str, inputs: dict[str, bytes]) -> None:
    (CORPUS / folder).mkdir(parents=True, exist_ok=True)
    for name, data in inputs.items():
        (CORPUS / folder / name).write_bytes(data)


def main() -> None:
    found = checkpoints()
    configs = {path.stem: path.read_bytes() for path in sorted(CONFIGS.glob("*.json"))}
    hac = json.loads(configs["hac-tiny"])
    write("container", {name.replace(" ", "-"): s.data for name, s in SAMPLES.items()})
    write("container", {f"mutant-{n}": mutant(7, n) for n in range(20)})
    write("pickle", {name: pickle_of(data) for name, data in found.items()} | PICKLES)
    old = {"old": saved({"generator": {"w": torch.zeros(2)}}, old=True)}
    native = {"hac": safetensors({"family": "hac", "model": hac["model"]})}
    empty = {
        "header": struct.pack("<Q", 2) + b"{}",
        "pointer": b"version https://git-lfs.github.com/",
    }
    write("checkpoint", found | old | native | empty)
    models = {f"{name}-model": json.dumps(json.loads(text).get("model", {})).encode()
              for name, text in configs.items() if name in ("hac", "supercodec")}  # fmt: skip
    write("config", {n: configs[n] for n in ("hac-tiny", "bigcodec-small", "supercodec")} | models)
    write("audio", sounds())
    write("filelist", LISTS)


if __name__ == "__main__":
    main()
