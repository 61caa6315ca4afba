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
        flat = z.movedim(1, -1).flatten(0, -2)
        distance = self.vectors.square().sum(1) - 2 * flat @ self.vectors.t()  # |z|^2 is the same for all entries
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
        if self.training:
            self._follow(z.detach(), index, generators)
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
    """Numbers of entries, of any shape -> e to the entropy of how often each is used: 1 to `entries`."""
    shares = torch.bincount(index.flatten(), minlength=entries) / index.numel()
    return torch.special.entr(shares).sum().exp()


class VQVAE(Autoencoder):
    """One level: `entries` vectors of `shape.code` numbers each; the commitment counts `commitment` times."""

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
        self.codebook = Codebook(entries, shape.code, update, decay, revive)
        self.weights = {"commitment": commitment, "perplexity": 0.0}

    def decode(self, z: Tensor) -> Tensor:
        return self.of_codes(self.codebook.nearest(z))

    def codes(self, y: Tensor) -> Tensor:
        """y (B,channels,H,W) -> numbers of entries (B,h,w): what a prior learns."""
        return self.codebook.nearest(self.code(y))

    def of_codes(self, index: Tensor) -> Tensor:
        """Numbers of entries (B,h,w) -> x (B,3,H,W)."""
        return self.to_x(self.pixels.mean(self.decoder(self.codebook.lookup(index))))

    def reconstruct(self, y: Tensor) -> Tensor:
        return self.pixels.mean(self.decoder(self.codebook.lookup(self.codes(y))))

    def losses(self, batch: Batch, generators: Sequence[Generator]) -> dict[str, Tensor]:
        found = self.codebook(self.code(batch.y), generators)
        used = perplexity(found.codes, self.entries).expand(len(batch.y))
        reconstruction = self.pixels.nll(self.decoder(found.z), batch.y)
        return {"reconstruction": reconstruction, **found.losses, "perplexity": used}


class VQVAE2(Autoencoder):
    """Two levels: the bottom, at the last level of `shape`, and the top, at half its sides, which the bottom is told.

    The top holds what is global, the bottom what is left. As a first stage its latents are both beside each other, the
    top's doubled to the bottom's size (B,2*code,h,w).
    """

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
        super().__init__(shape, likelihood, sigma)
        if shape.network != "conv" or shape.vector or not shape.widths or any(side % 2 for side in shape.places):
            raise ValueError(f"{shape}: expected convolutions, and a map with even sides to halve")
        self.entries, self.commitment = entries, commitment
        self.update, self.decay, self.revive = update, decay, revive
        features, code = shape.widths[-1], shape.code
        self.upper = nn.Sequential(
            nn.SiLU(), nn.Conv2d(features, features, 4, 2, 1), nn.SiLU(), nn.Conv2d(features, code, 1)
        )
        self.lower = nn.Conv2d(features + code, code, 1)
        self.decoder = decoder(shape, beside=code)
        self.top, self.bottom = (Codebook(entries, code, update, decay, revive) for _ in range(2))
        self.weights = {"commitment": commitment, "perplexity": 0.0, "top_perplexity": 0.0}

    @property
    def features(self) -> int:
        return self.shape.widths[-1] if self.shape.widths else self.shape.code

    @property
    def latent_channels(self) -> int:
        return 2 * self.shape.code

    def code(self, y: Tensor) -> Tensor:
        """y (B,channels,H,W) -> both levels before they are quantised (B,2*code,h,w)."""
        features = self.encoder(y)
        top = self.upper(features)
        entries = self.top.lookup(self.top.nearest(top))
        return torch.cat([doubled(top), self.lower_of(features, entries)], dim=1)

    def lower_of(self, features: Tensor, top: Tensor) -> Tensor:
        """Features (B,F,h,w) and entries of the top (B,D,h/2,w/2) -> the bottom before it is quantised (B,D,h,w)."""
        return self.lower(torch.cat([features, doubled(top)], dim=1))

    def output(self, top: Tensor, bottom: Tensor) -> Tensor:
        """Entries of both levels -> what the likelihood takes (B,channels,H,W)."""
        return self.decoder(torch.cat([bottom, doubled(top)], dim=1))

    def decode(self, z: Tensor) -> Tensor:
        top, bottom = z.chunk(2, dim=1)
        return self.of_codes((self.top.nearest(F.avg_pool2d(top, 2)), self.bottom.nearest(bottom)))

    def codes(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """y (B,channels,H,W) -> numbers of the top's entries (B,h/2,w/2) and of the bottom's (B,h,w)."""
        top, bottom = self.code(y).chunk(2, dim=1)
        return self.top.nearest(F.avg_pool2d(top, 2)), self.bottom.nearest(bottom)

    def of_codes(self, codes: tuple[Tensor, Tensor]) -> Tensor:
        """Numbers of entries of both levels -> x (B,3,H,W)."""
        return self.to_x(self.pixels.mean(self.output(self.top.lookup(codes[0]), self.bottom.lookup(codes[1]))))

    def reconstruct(self, y: Tensor) -> Tensor:
        top, bottom = self.codes(y)
        return self.pixels.mean(self.output(self.top.lookup(top), self.bottom.lookup(bottom)))

    def losses(self, batch: Batch, generators: Sequence[Generator]) -> dict[str, Tensor]:
        features = self.encoder(batch.y)
        top = self.top(self.upper(features), generators)
        bottom = self.bottom(self.lower_of(features, top.z), generators)
        used = {"top_perplexity": top.codes, "perplexity": bottom.codes}
        return {
            "reconstruction": self.pixels.nll(self.output(top.z, bottom.z), batch.y),
            **{name: loss + bottom.losses[name] for name, loss in top.losses.items()},
            **{name: perplexity(codes, self.entries).expand(len(batch.y)) for name, codes in used.items()},
        }


def doubled(z: Tensor) -> Tensor:
    """(B,D,h,w) -> (B,D,2h,2w), each place four times."""
    return F.interpolate(z, scale_factor=2)
