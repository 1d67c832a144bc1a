"""Graphs of HAC decoders with a source of harmonics and noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import codectool
from codectool.codec import Codec
from codectool.codecs.hac.export import ConvFilter, ScanPhaseLock
from codectool.codecs.hac.source import PhaseLock, SegmentFilter
from tests.export.conftest import Exported
from tests.signals import speechlike, split_randomly

PERIOD = 1200


@pytest.fixture
def codec(graphs: Exported) -> Codec:
    """Return a small HAC with a source."""
    return graphs["hac"][0]


@pytest.fixture
def onnx(graphs: Exported) -> Codec:
    """Return its graphs in ONNX Runtime."""
    return codectool.load(checkpoint=graphs["hac"][1])


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the ratio of the powers of error and signal, in dB."""
    return float(10 * np.log10(np.square(found - expected).sum() / np.square(expected).sum()))


def test_audio_agrees_with_torch_and_is_deterministic(codec: Codec, onnx: Codec) -> None:
    tokens = codec.encode(speechlike(3.0, 24000), 24000)
    found = onnx.decode(tokens)
    assert relative_error(found, codec.decode(tokens)) < -60
    np.testing.assert_array_equal(onnx.decode(tokens), found)


def test_streams_equal_files_bit_for_bit(onnx: Codec) -> None:
    tokens = onnx.encode(speechlike(2.3, 24000), 24000)
    whole = onnx.decode(tokens)
    stream = onnx.stream_decoder(24000)
    parts = [*map(stream.push, split_randomly(tokens.codes, 40)), stream.flush(whole.shape[1])]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
    live = onnx.stream_decoder(24000, chunk_frames=1)
    parts = [live.push(tokens.codes), live.flush(whole.shape[1])]
    assert relative_error(np.concatenate(parts, axis=1), whole) < -60


def test_ranges_equal_the_whole_bit_for_bit(onnx: Codec) -> None:
    context = onnx.model.decode_context
    assert context.before is not None
    codes = np.random.default_rng(0).integers(0, 2**18, (1, 1500)).astype(np.int32)
    (whole,) = onnx.runner.decode([codes])
    (part,) = onnx.runner.decode([codes[:, context.start_step :]])
    first = context.before * onnx.hop_length
    np.testing.assert_array_equal(part[:, first:], whole[:, -part.shape[1] :][:, first:])


def test_phase_lock_as_a_scan() -> None:
    generator = torch.Generator().manual_seed(0)
    frames = torch.arange(2 * PERIOD) * 160
    frequency = 150 / 24000 * (1 + 0.1 * torch.sin(frames / 20000))
    angle = 2 * torch.pi * (torch.cumsum(frequency * 160, 0) % 1)
    logit = torch.where(frames % 80_000 < 8000, -9.0, 3.0)
    logit[PERIOD - 700 :] = 5.0  # longer than half a period: starts again at a multiple of it
    noise = 0.1 * torch.randn(2, len(frames), generator=generator)
    values = torch.stack([frequency, logit, angle.cos() + noise[0], angle.sin() + noise[1]], 1)
    expected = PhaseLock(160, PERIOD)
    with torch.no_grad():
        start, cut = torch.zeros(1, 3), 1000
        track, state = expected(values[None], start)
        lock = ScanPhaseLock(160, PERIOD)
        first, middle = lock(values[None, :cut], start)
        second, end = lock(values[None, cut:], middle)
    found = torch.cat([first, second], 1)
    error = found - track
    error[..., 0] -= error[..., 0].round()
    assert error.abs().amax((0, 1)) == pytest.approx([0, 0, 0], abs=5e-5)
    assert torch.equal(found[..., 0] == 0, track[..., 0] == 0)
    assert torch.equal(end[:, 1:], state[:, 1:])
    assert (track[0, PERIOD - 600 :, 0] == 0).nonzero()[:, 0].tolist() == [600]


@pytest.mark.parametrize(("fft", "delay"), [(512, 128), (250, 48)])
def test_filter_as_convolutions(fft: int, delay: int) -> None:
    block = SegmentFilter(80, fft, delay, 20, 24000 / fft)
    generator = torch.Generator().manual_seed(0)
    sources, rest = torch.randn(1, 2, 800, generator=generator), torch.randn(1, block.tail)
    gains = torch.randn(1, 9, 2, 20, generator=generator)
    expected = block(sources, gains, rest)
    found = ConvFilter(block)(sources, gains, rest)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)
