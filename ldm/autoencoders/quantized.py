"""Autoencoders whose code is made of entries of a codebook (van den Oord et al. 2017; Razavi et al. 2019).

    y --encoder--> z_e (B,D,h,w) --nearest entry--> z_q --decoder--> y        d z_q / d z_e := 1, straight through

As a first stage their latents are z_e, which decoding quantises (Rombach et al. 2022, "VQ-reg").
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from ldm.autoencoders.base import Autoencoder, Batch
from ldm.autoencoders.networks import Shape, decoder

UPDATES = ("ema", "loss")


class Quantized(NamedTuple):
    """Entries z (B,D,h,w), with a gradient for what was quantised; their numbers `codes` (B,h,w); losses, each (B,)."""

    z: Tensor
    codes: Tensor
    losses: dict[str, Tensor]


class Codebook(nn.Module):
    """`entries` vectors of length `width`, each of which stands for what is nearest to it.

    They follow what they stand for by averages over batches of memory `decay` ("ema"; van den Oord et al. 2017,
    appendix A.1), or by gradients ("loss"). In training an entry that stands for less than `revive` vectors of a batch,
    on that average, takes the place of one of the batch's vectors (Dhariwal et al. 2020, section 3.1); 0 is never.
    """

    def __init__(self, entries: int, width: int, update: str = "ema", decay: float = 0.99, revive: float = 0.01):
        super().__init__()
        if update not in UPDATES:
            raise ValueError(f"update {update!r}: expected one of {', '.join(UPDATES)}")
        if entries < 2 or not 0 <= decay < 1 or not revive >= 0:
            raise ValueError(f"entries {entries}, decay {decay}, revive {revive}: expected 2 or more, 0..1, 0 or more")
        self.update, self.decay, self.revive = update, decay, revive
        vectors = torch.randn(entries, width) / math.sqrt(width)
        self.vectors: Tensor
        self.counts: Tensor  # vectors that each stands for, averaged over batches
        self.sums: Tensor
        if update == "loss":
            self.vectors = nn.Parameter(vectors)
        else:
            self.register_buffer("vectors", vectors)
        self.register_buffer("counts", torch.ones(entries))
        self.register_buffer("sums", vectors.clone())

    def nearest(self, z: Tensor) -> Tensor:
        """z (B,D,h,w) -> the number of the nearest entry (B,h,w)."""
        with torch.autocast(z.device.type, enabled=False):
            products = z.movedim(1, -1).flatten(0, -2).to(self.vectors) @ self.vectors.t()
        distance = self.vectors.square().sum(1) - 2 * products  # |z|^2 is the same for all entries
        return distance.argmin(1).view(len(z), *z.shape[2:])

    def lookup(self, index: Tensor) -> Tensor:
        """Numbers of entries (B,h,w) -> these entries (B,D,h,w)."""
        return F.embedding(index, self.vectors).movedim(-1, 1)

    def forward(self, z: Tensor, generators: Sequence[Generator] = ()) -> Quantized:
        """z (B,D,h,w) -> its entries. In training the codebook moves; the first generator says which are revived."""
        index = self.nearest(z)
        entries = self.lookup(index)
        losses = {"commitment": (z - entries.detach()).square().flatten(1).sum(1)}
        if self.update == "loss":
            losses["codebook"] = (z.detach() - entries).square().flatten(1).sum(1)
        if self.training and z.isfinite().all():  # or a step that is passed over would leave its mark
            with torch.autocast(z.device.type, enabled=False):
                self._follow(z.detach().to(self.vectors), index, generators)
        return Quantized(z + (entries - z).detach(), index, losses)

    @torch.no_grad()
    def _follow(self, z: Tensor, index: Tensor, generators: Sequence[Generator]) -> None:
        flat = z.movedim(1, -1).flatten(0, -2)
        used = F.one_hot(index.flatten(), len(self.vectors)).to(flat)
        self.counts.lerp_(used.sum(0), 1 - self.decay)
        self.sums.lerp_(used.t() @ flat, 1 - self.decay)
        if self.update == "ema":
            self.vectors.copy_(self.sums / self.counts.clamp_min(1e-5).unsqueeze(1))
        dead = (self.counts < self.revive).nonzero().flatten()
        if self.revive and len(dead):
            taken = torch.randint(len(flat), (len(dead),), generator=generators[0] if generators else None)
            self.vectors[dead] = self.sums[dead] = flat[taken.to(flat.device)]
            self.counts[dead] = 1.0


def perplexity(index: Tensor, entries: int) -> Tensor:
    """Numbers of entries, of any shape -> e to the entropy of how often each is used: 1 to `entries`.

    >>> round(float(perplexity(torch.tensor([0, 1, 2, 3]), entries=8)), 4)
    4.0
    """
    shares = torch.bincount(index.flatten(), minlength=entries) / index.numel()
    return torch.special.entr(shares).sum().exp()


class Quantizing(Autoencoder):
    """`entries` vectors of `shape.code` numbers on each level; the commitment counts `commitment` times."""

    splits = False  # codebooks follow whole batches
    perplexities: tuple[str, ...]  # the name of each level's, from the top

    def __init__(
        self,
        shape: Shape = Shape(),  # noqa: B008
        likelihood: str = "gaussian",
        sigma: float = 1.0,
        entries: int = 512,
        commitment: float = 0.25,
        update: str = "ema",
        decay: float = 0.99,
        revive: float = 0.01,
    ):
        super().__init__(shape, likelihood, sigma)
        self.entries, self.commitment = entries, commitment
        self.update, self.decay, self.revive = update, decay, revive
        books = [Codebook(entries, shape.code, update, decay, revive) for _ in self.perplexities]
        self.books: Sequence[Codebook] = nn.ModuleList(books)  # type: ignore[assignment]
        self.weights = {"commitment": commitment, **dict.fromkeys(self.perplexities, 0.0)}

    def split(self, z: Tensor) -> Sequence[Tensor]:
        """A latent z (B,C,h,w) -> each level before it is quantised (B,D,h,w), from the top."""
        raise NotImplementedError

    def quantised(self, y: Tensor, generators: Sequence[Generator]) -> list[Quantized]:
        """y (B,channels,H,W) -> each level, from the top. In training the codebooks move."""
        raise NotImplementedError

    def output(self, *entries: Tensor) -> Tensor:
        """Entries of each level (B,D,h,w) -> what the likelihood takes (B,channels,H,W)."""
        raise NotImplementedError

    def decode(self, z: Tensor) -> Tensor:
        return self.of_codes(self.nearest(z))

    def nearest(self, z: Tensor) -> list[Tensor]:
        """A latent z (B,C,h,w) -> numbers of entries of each level (B,h,w)."""
        return [book.nearest(level) for book, level in zip(self.books, self.split(z), strict=True)]

    def codes(self, y: Tensor) -> list[Tensor]:
        """y (B,channels,H,W) -> numbers of entries of each level (B,h,w): what a prior learns."""
        return self.nearest(self.code(y))

    def of_codes(self, codes: Sequence[Tensor]) -> Tensor:
        """Numbers of entries of each level (B,h,w) -> x (B,3,H,W)."""
        return self.to_x(self._expected(codes))

    def reconstruct(self, y: Tensor, label: Tensor | None = None) -> Tensor:
        return self._expected(self.codes(y))

    def losses(self, batch: Batch, generators: Sequence[Generator]) -> dict[str, Tensor]:
        levels = self.quantised(batch.y, generators)
        parts = {"reconstruction": self.pixels.nll(self.output(*(level.z for level in levels)), batch.y)}
        for name in levels[0].losses:
            parts[name] = sum((level.losses[name] for level in levels[1:]), levels[0].losses[name])
        used = self.used([level.codes for level in levels])
        return parts | {name: value.expand(len(batch.y)) for name, value in used.items()}

    def used(self, codes: Sequence[Tensor]) -> dict[str, Tensor]:
        """Numbers of entries of each level -> their perplexity, by name."""
        levels = zip(self.perplexities, codes, strict=True)
        return {name: perplexity(level, self.entries) for name, level in levels}

    def _expected(self, codes: Sequence[Tensor]) -> Tensor:
        entries = (book.lookup(level) for book, level in zip(self.books, codes, strict=True))
        return self.pixels.mean(self.output(*entries))


class VQVAE(Quantizing):
    """One level of codes: y (B,channels,H,W) -> `entries` numbers to choose from at each place (B,h,w) -> y.

    Its losses are reconstruction and commitment, and with update="loss" that of the codebook (van den Oord et al. 2017,
    equation 3); beside them the perplexity, 1 to `entries`. `Codebook` tells of update, decay and revive, and refuses
    what they cannot be.
    """

    perplexities = ("perplexity",)

    def split(self, z: Tensor) -> Sequence[Tensor]:
        return [z]

    def quantised(self, y: Tensor, generators: Sequence[Generator]) -> list[Quantized]:
        return [self.books[0](self.code(y), generators)]

    def output(self, *entries: Tensor) -> Tensor:
        return self.decoder(*entries)


class VQVAE2(Quantizing):
    """Two levels: the bottom, at the last level of `shape`, and the top, at half its sides, which the bottom is told.

    The top holds what is global, the bottom what is left. As a first stage its latents are both beside each other, the
    top's doubled to the bottom's size (B,2*code,h,w). Razavi et al. 2019. ValueError for a shape without a map that can
    be halved.
    """

    perplexities = ("top_perplexity", "perplexity")

    def __init__(
        self,
        shape: Shape = Shape((32, 32), 3, 16, "conv", (32, 64)),  # noqa: B008
        likelihood: str = "gaussian",
        sigma: float = 1.0,
        entries: int = 512,
        commitment: float = 0.25,
        update: str = "ema",
        decay: float = 0.99,
        revive: float = 0.01,
    ):
        super().__init__(shape, likelihood, sigma, entries, commitment, update, decay, revive)
        if shape.network != "conv" or shape.vector or not shape.widths or any(side % 2 for side in shape.places):
            raise ValueError(f"{shape}: expected convolutions, and a map with even sides to halve")
        features, code = shape.widths[-1], shape.code
        self.upper = nn.Sequential(
            nn.SiLU(), nn.Conv2d(features, features, 4, 2, 1), nn.SiLU(), nn.Conv2d(features, code, 1)
        )
        self.lower = nn.Conv2d(features + code, code, 1)
        self.decoder = decoder(shape, beside=code)

    @property
    def features(self) -> int:
        return self.shape.widths[-1] if self.shape.widths else self.shape.code

    @property
    def latent_channels(self) -> int:
        return 2 * self.shape.code

    def code(self, y: Tensor) -> Tensor:
        features = self.encoder(y)
        top = self.upper(features)
        entries = self.books[0].lookup(self.books[0].nearest(top))
        return torch.cat([doubled(top), self.lower_of(features, entries)], dim=1)

    def split(self, z: Tensor) -> Sequence[Tensor]:
        top, bottom = z.chunk(2, dim=1)
        return F.avg_pool2d(top, 2), bottom

    def quantised(self, y: Tensor, generators: Sequence[Generator]) -> list[Quantized]:
        features = self.encoder(y)
        top = self.books[0](self.upper(features), generators)
        return [top, self.books[1](self.lower_of(features, top.z), generators)]

    def lower_of(self, features: Tensor, top: Tensor) -> Tensor:
        """Features (B,F,h,w) and entries of the top (B,D,h/2,w/2) -> the bottom before it is quantised (B,D,h,w)."""
        return self.lower(torch.cat([features, doubled(top)], dim=1))

    def output(self, *entries: Tensor) -> Tensor:
        top, bottom = entries
        return self.decoder(torch.cat([bottom, doubled(top)], dim=1))


def doubled(z: Tensor) -> Tensor:
    """(B,D,h,w) -> (B,D,2h,2w), each place four times."""
    return F.interpolate(z, scale_factor=2)
