"""Reference models: the codecs written directly from the papers, with the same weights and tokens.

- Weight norm is live: every weight is recomputed in every call.
- A file is processed as a whole, and files one at a time.
- The alias-free activation pads, filters and crops in separate operations.
- SuperCodec's gates are convolutions over a signal of length one.
- The codebook is normalized in every search.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from codectool.codecs.hac.network import HacNetwork
from codectool.codecs.hac.quantizer import index_to_signs, signs_to_index

State = Mapping[str, Tensor]


class ReferenceModel(nn.Module, ABC):
    """A codec on one file: samples to codes and back."""

    @abstractmethod
    def latent(self, wave: Tensor) -> Tensor:
        """Map whole frames ``(1, 1, N)`` to the quantizer input ``(1, F, D)``."""

    @abstractmethod
    def quantize(self, latent: Tensor) -> Tensor:
        """Map ``(1, F, D)`` to int64 codes ``(1, K, F)``."""

    @abstractmethod
    def gaps(self, latent: Tensor, codes: Tensor, other_codes: Tensor) -> Tensor:
        """Return how much farther one choice of codes is than another, ``(1, F)``; 0 if equal.

        The difference of the distances to the two codewords (for signs: the value), relative to the
        norm of the quantizer input. Values near rounding are ties. Only the first stage that
        differs counts, because later stages quantize its residual.

        Args:
            latent: ``(1, F, D)``.
            codes: ``(1, K, F)``.
            other_codes: ``(1, K, F)``.
        """

    @abstractmethod
    def synthesize(self, codes: Tensor) -> Tensor:
        """Map codes ``(1, K, F)`` to samples ``(1, 1, N)``."""

    @torch.inference_mode()
    def encode(self, wave: Tensor) -> Tensor:
        """Encode whole frames ``(1, 1, N)`` to int64 codes ``(1, K, F)``."""
        return self.quantize(self.latent(wave))

    @torch.inference_mode()
    def decode(self, codes: Tensor) -> Tensor:
        """Map codes ``(1, K, F)`` to samples ``(1, 1, N)``."""
        return self.synthesize(codes)


def codeword_gap(rows: Tensor, table: Tensor, codes: Tensor, other_codes: Tensor) -> Tensor:
    """Return the relative difference of distances to two codewords, ``(1, F)``."""
    rows, table = rows.double(), table.double()
    distance = (rows - table[codes]).norm(dim=-1) - (rows - table[other_codes]).norm(dim=-1)
    return distance.abs() / rows.norm(dim=-1)


# BigCodec


class AliasFree(nn.Module):
    """Upsample by 2, apply SnakeBeta, downsample by 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.act = SnakeBeta(channels)
        self.upsample = Filter()
        self.downsample = nn.ModuleDict({"lowpass": Filter()})

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        up = self.upsample.filter.expand(channels, -1, -1)
        x = F.pad(x, (5, 5), mode="replicate")
        x = 2 * F.conv_transpose1d(x, up, stride=2, groups=channels)
        x = self.act(x[..., 15:-15])
        down = self.downsample["lowpass"].filter.expand(channels, -1, -1)
        return F.conv1d(F.pad(x, (5, 6), mode="replicate"), down, stride=2, groups=channels)


class Filter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filter", torch.zeros(1, 1, 12))


class SnakeBeta(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        alpha = torch.exp(self.alpha[None, :, None])
        beta = torch.exp(self.beta[None, :, None])
        return x + (1.0 / (beta + 1e-9)) * torch.sin(x * alpha).pow(2)


class BigUnit(nn.Module):
    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            AliasFree(channels),
            weight_norm(nn.Conv1d(channels, channels, 7, 1, 3 * dilation, dilation)),
            AliasFree(channels),
            weight_norm(nn.Conv1d(channels, channels, 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


class BigBlock(nn.Module):
    """A stage of the encoder (``up`` false) or decoder, from ``c_in`` channels to ``c_out``."""

    def __init__(self, c_in: int, c_out: int, stride: int, units: int, up: bool) -> None:
        super().__init__()
        residuals = [BigUnit(c_out if up else c_in, 3**number) for number in range(units)]
        padding = stride // 2 + stride % 2
        if up:
            conv: nn.Module = nn.ConvTranspose1d(
                c_in, c_out, 2 * stride, stride, padding, output_padding=stride % 2
            )
        else:
            conv = nn.Conv1d(c_in, c_out, 2 * stride, stride, padding)
        change = [AliasFree(c_in), weight_norm(conv)]
        self.block = nn.Sequential(*(change + residuals if up else residuals + change))

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class ResidualLSTM(nn.Module):
    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, width, layers)

    def forward(self, x: Tensor) -> Tensor:
        steps = x.permute(2, 0, 1)
        return (self.lstm(steps)[0] + steps).permute(1, 2, 0)


class FactorizedStage(nn.Module):
    def __init__(self, width: int, narrow: int, size: int) -> None:
        super().__init__()
        self.in_proj: nn.Module = nn.Identity()
        self.out_proj: nn.Module = nn.Identity()
        if width != narrow:
            self.in_proj = weight_norm(nn.Linear(width, narrow))
            self.out_proj = weight_norm(nn.Linear(narrow, width))
        self._codebook = nn.Embedding(size, narrow)

    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        narrow = self.in_proj(latent)
        rows = F.normalize(narrow, dim=-1)
        codewords = F.normalize(self._codebook.weight, dim=-1)
        distance = rows.pow(2).sum(-1, keepdim=True) - 2 * rows @ codewords.t()
        distance = distance + codewords.pow(2).sum(-1)
        codes = (-distance).max(-1)[1]
        return codes, self.out_proj(narrow + (self._codebook(codes) - narrow))

    def gaps(self, latent: Tensor, codes: Tensor, other_codes: Tensor) -> Tensor:
        rows = F.normalize(self.in_proj(latent), dim=-1)
        return codeword_gap(rows, F.normalize(self._codebook.weight, dim=-1), codes, other_codes)

    def lookup(self, codes: Tensor) -> Tensor:
        return self.out_proj(self._codebook(codes))


class ReferenceBigCodec(ReferenceModel):
    """BigCodec with the tensor names of the released file, ``CodecEnc.`` and ``generator.``.

    As in all published sizes, dilations are powers of three and LSTMs are unidirectional.
    """

    def __init__(self, state: State) -> None:
        super().__init__()
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        with torch.device("meta"):
            self.CodecEnc = nn.ModuleDict({"block": self._stack(shapes, "CodecEnc.block", False)})
            self.generator = nn.ModuleDict({"model": self._stack(shapes, "generator.model", True)})
            codebooks = [
                shape for name, shape in shapes.items() if name.endswith("_codebook.weight")
            ]
            width = shapes["generator.model.0.weight_v"][1]
            stages = [FactorizedStage(width, narrow, size) for size, narrow in codebooks]
            self.generator["quantizer"] = nn.ModuleDict({"layers": nn.ModuleList(stages)})
        _fill(self, state)
        self.stages = stages

    def _stack(self, shapes: Mapping[str, tuple[int, ...]], stem: str, up: bool) -> nn.Sequential:
        """Build encoder or decoder from shapes; position 1 holds the strided layer if ``up``."""
        pattern = re.compile(re.escape(stem) + r"\.(\d+)\.block\.(\d+)\.block\.1\.weight_v")
        found = [match for match in map(pattern.fullmatch, shapes) if match]
        units = len({match[2] for match in found})
        last = max(int(name[len(stem) + 1 :].split(".")[0]) for name in shapes if stem in name)
        layers: list[nn.Module] = []
        for place in range(last + 1):
            prefix = f"{stem}.{place}."
            own = {name[len(prefix) :]: s for name, s in shapes.items() if name.startswith(prefix)}
            if "lstm.weight_ih_l0" in own:
                depth = sum(name.startswith("lstm.weight_ih") for name in own)
                layers.append(ResidualLSTM(own["lstm.weight_ih_l0"][1], depth))
            elif "act.alpha" in own:
                layers.append(AliasFree(own["act.alpha"][0]))
            elif "weight_v" in own:
                c_out, c_in, kernel = own["weight_v"]
                layers.append(weight_norm(nn.Conv1d(c_in, c_out, kernel, padding=kernel // 2)))
            else:
                first, second, kernel = own[f"block.{1 if up else units + 1}.weight_v"]
                c_in, c_out = (first, second) if up else (second, first)
                layers.append(BigBlock(c_in, c_out, kernel // 2, units, up))
        return nn.Sequential(*layers)

    def latent(self, wave: Tensor) -> Tensor:
        return self.CodecEnc["block"](wave).transpose(1, 2)

    def quantize(self, latent: Tensor) -> Tensor:
        codes, rest = [], latent
        for stage in self.stages:
            found, value = stage(rest)
            codes.append(found)
            rest = rest - value
        return torch.stack(codes, 1)

    @torch.inference_mode()
    def gaps(self, latent: Tensor, codes: Tensor, other_codes: Tensor) -> Tensor:
        found = torch.zeros(latent.shape[:2], dtype=torch.float64)
        differs = torch.zeros(latent.shape[:2], dtype=torch.bool)
        for stage, first, second in zip(
            self.stages, codes.unbind(1), other_codes.unbind(1), strict=True
        ):
            found = torch.where(differs, found, stage.gaps(latent, first, second))
            differs |= first != second
            latent = latent - stage.lookup(first)
        return found

    def synthesize(self, codes: Tensor) -> Tensor:
        return torch.tanh(self.generator["model"](self.lookup(codes)))

    def lookup(self, codes: Tensor) -> Tensor:
        """Map codes ``(1, K, F)`` to the decoder input ``(1, D, F)``."""
        both = zip(self.stages, codes.unbind(1), strict=True)
        return sum(stage.lookup(found) for stage, found in both).transpose(1, 2)


# SuperCodec


class Causal(nn.Module):
    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.past = kernel - stride
        self.conv = nn.Conv1d(c_in, c_out, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (self.past, 0), mode="reflect"))


class CausalUp(nn.Module):
    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.ConvTranspose1d(c_in, c_out, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)[..., : x.shape[-1] * self.stride]


class Residuals(nn.Module):
    def __init__(self, channels: int, dilations: Sequence[int], name: str) -> None:
        super().__init__()
        convs = [weight_norm(nn.Conv1d(channels, channels, 3, 1, d, d)) for d in dilations]
        self.add_module(name, nn.ModuleList(convs))
        self.convs_in_order = convs

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs_in_order:
            x = x + conv(F.leaky_relu(x, 0.1))
        return x


class SelectNet(nn.Module):
    """Gates as convolutions of width 3 over one position with zero padding."""

    def __init__(self, channels: int) -> None:
        super().__init__()

        def layer() -> nn.Module:
            return nn.Conv1d(channels, channels, 3, padding=1)

        self.fc = nn.Sequential(layer(), nn.ReLU())
        self.fcs = nn.ModuleList([layer(), layer()])

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        hidden = self.fc((a + b).mean(-1, keepdim=True))
        weights = torch.softmax(torch.stack([gate(hidden) for gate in self.fcs]), 0)
        return (weights * torch.stack([a, b])).sum(0)


class SuperBlock(nn.Module):
    """A stage of the encoder (``up`` false) or decoder."""

    def __init__(self, c_in: int, c_out: int, kernel: int, up: bool) -> None:
        super().__init__()
        stride = kernel // 2
        there, back = (CausalUp, Causal) if up else (Causal, CausalUp)
        forth, rev = ("ups", "downs") if up else ("downs", "ups")
        self.one, self.two = f"{forth}_one", f"{forth}_two"
        self.back = f"{rev}_one"
        self.add_module(self.one, there(c_in, c_out, kernel, stride))
        self.add_module(self.two, there(c_in, c_out, kernel, stride))
        self.add_module(self.back, back(c_out, c_in, kernel, stride))
        self.res_one = Residuals(c_in, (1, 3), "convs")
        self.skn = SelectNet(c_out)
        self.res_four = Residuals(c_out, (1, 3, 5), "convs1")

    def forward(self, x: Tensor) -> Tensor:
        a = self.get_submodule(self.one)(x)
        error = self.res_one(x - self.get_submodule(self.back)(a))
        return self.res_four(self.skn(a, self.get_submodule(self.two)(error)))


class ReferenceSuperCodec(ReferenceModel):
    """SuperCodec with the tensor names of the published training script."""

    def __init__(self, state: State) -> None:
        super().__init__()
        with torch.device("meta"):
            self.encoder = self._stack(state, "encoder", False)
            self.decoder = self._stack(state, "decoder", True)
        numbers = range(sum(name.endswith("_codebook.embed") for name in state))
        self.embed = [state[f"rq.layers.{number}._codebook.embed"][0] for number in numbers]
        _fill(self, {name: value for name, value in state.items() if not name.startswith("rq.")})

    def _stack(self, state: State, stem: str, up: bool) -> nn.Sequential:
        layers: list[nn.Module] = []
        for place in range(1 + max(int(n.split(".")[1]) for n in state if n.startswith(stem))):
            prefix = f"{stem}.{place}."
            if f"{prefix}conv.weight" in state:
                c_out, c_in, kernel = state[f"{prefix}conv.weight"].shape
                layers.append(Causal(c_in, c_out, kernel))
            else:
                name = "ups_one" if up else "downs_one"
                first, second, kernel = state[f"{prefix}{name}.conv.weight"].shape
                c_in, c_out = (first, second) if up else (second, first)
                layers.append(SuperBlock(c_in, c_out, kernel, up))
        return nn.Sequential(*layers)

    def latent(self, wave: Tensor) -> Tensor:
        return self.encoder(wave).transpose(1, 2)

    def quantize(self, latent: Tensor) -> Tensor:
        codes, rest = [], latent
        for embed in self.embed:
            codes.append((-torch.cdist(rest, embed[None])).argmax(-1))
            rest = rest - F.embedding(codes[-1], embed)
        return torch.stack(codes, 1)

    @torch.inference_mode()
    def gaps(self, latent: Tensor, codes: Tensor, other_codes: Tensor) -> Tensor:
        found = torch.zeros(latent.shape[:2], dtype=torch.float64)
        differs = torch.zeros(latent.shape[:2], dtype=torch.bool)
        for embed, first, second in zip(
            self.embed, codes.unbind(1), other_codes.unbind(1), strict=True
        ):
            found = torch.where(differs, found, codeword_gap(latent, embed, first, second))
            differs |= first != second
            latent = latent - F.embedding(first, embed)
        return found

    def synthesize(self, codes: Tensor) -> Tensor:
        total = sum(
            F.embedding(found, embed)
            for found, embed in zip(codes.unbind(1), self.embed, strict=True)
        )
        return self.decoder(total.transpose(1, 2))


# HAC


class ReferenceHac(ReferenceModel):
    """HAC: the training network on a whole file, with scales and gains not folded.

    There is no other implementation of HAC to compare with.
    """

    def __init__(self, network: HacNetwork) -> None:
        super().__init__()
        self.network = network.eval()

    def latent(self, wave: Tensor) -> Tensor:
        net = self.network
        return net.bottleneck(net.encoder(net.norm(net.analysis(wave.mT)[0]))[0]).values

    def quantize(self, latent: Tensor) -> Tensor:
        return signs_to_index(latent).unsqueeze(1)

    @torch.inference_mode()
    def gaps(self, latent: Tensor, codes: Tensor, other_codes: Tensor) -> Tensor:
        bits = latent.shape[-1]
        other = index_to_signs(codes[:, 0], bits) != index_to_signs(other_codes[:, 0], bits)
        size = latent.double().norm(dim=-1, keepdim=True) / bits**0.5
        return ((latent.abs() / size) * other).amax(-1)

    def synthesize(self, codes: Tensor) -> Tensor:
        net = self.network
        signs = index_to_signs(codes[:, 0], net.config.num_bits)
        late = F.pad(signs, (0, 0, 0, net.config.delay_frames))
        wave = net.synthesis(net.norm.restore(net.decoder(late)[0]))[0].mT
        return wave[..., net.config.delay_frames * net.config.hop_length :]


def _fill(model: nn.Module, state: State) -> None:
    """Load tensors under the names of PyTorch's current weight norm."""
    new = {"weight_g": "original0", "weight_v": "original1"}
    renamed = {
        re.sub(r"weight_([gv])$", lambda m: f"parametrizations.weight.{new[m[0]]}", name): tensor
        for name, tensor in state.items()
    }
    model.load_state_dict(renamed, assign=True)
    model.requires_grad_(False).eval()
