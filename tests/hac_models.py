"""HAC models with random weights, for tests and benchmarks."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn import functional as F

import codectool
from codectool.codecs.hac.config import AnyHacConfig, parse_config
from codectool.codecs.hac.model import HacCodec, fold
from codectool.codecs.hac.network import HacNetwork
from codectool.schema import read_json, to_json

CONFIGS = Path(codectool.__file__).parent / "configs"


def load_preset(name: str) -> AnyHacConfig:
    """Read the hyper-parameters of a config that comes with codectool."""
    return parse_config(read_json(CONFIGS / f"{name}.json")["model"])


def preset_with_source(**changes: object) -> AnyHacConfig:
    """Read the smallest preset; its decoder gets a small source of harmonics and noise."""
    source: dict[str, object] = {"stage": 1, "cutoff": 600.0, "hidden": 16, "context": 8}
    source |= {"pitch_hidden": 16, "pitch_kernel": 3, "pitch_bins": 76}
    source |= {"bands": 20, "fft_size": 256, "filter_delay": 48, **changes}
    return parse_config(to_json(load_preset("hac-tiny")) | {"source": source})


def small_preset(name: str) -> AnyHacConfig:
    """Read a preset; a spectral one is made a few percent as wide."""
    values = to_json(load_preset(name))
    if values["kind"] == "spectral":
        values |= {"channels": [4, 4, 8, 8], "hidden": [4, 4, 8, 16]}
        values |= {"depth_channels": 24, "depth_hidden": 32}
    return parse_config(values)


def untrained_network(config: AnyHacConfig, seed: int = 0) -> HacNetwork:
    """Build a network of random weights whose tokens are nevertheless diverse.

    Its running averages are measured on noise of changing level, so that features have unit
    variance and bits are balanced.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = HacNetwork(config).train()
        for _ in range(4):
            level = 10 ** torch.empty(4, 1, 32).uniform_(-2, -0.5)
            noise = torch.randn(4, 1, 64 * config.hop_length)
            with torch.no_grad():
                network(noise * F.interpolate(level, noise.shape[-1]))
    return network.eval()


def untrained(config: AnyHacConfig, seed: int = 0) -> HacCodec:
    """Build the codec of `untrained_network`."""
    return fold(untrained_network(config, seed))
