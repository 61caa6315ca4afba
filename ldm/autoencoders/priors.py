"""What codes are drawn from, so that every autoencoder generates.

NormalPrior    N(0, I), which the variational ones are trained for
LabelledPrior  the same, with a class for each
MixturePrior   a Gaussian mixture, fitted to the codes of a deterministic one          (Ghosh et al. 2020)
CodePrior      a GPT-2 over the numbers of a codebook's entries, the top level's before the bottom's
                                                                (van den Oord et al. 2017; Razavi et al. 2019)
"""

import json
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from safetensors import safe_open
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from tqdm import trange

from ldm.autoencoders.base import Autoencoder, batches
from ldm.autoencoders.quantized import Quantizing
from ldm.autoencoders.variational import VAE, ConditionalVAE
from ldm.checkpoints import named
from ldm.checkpoints.modules import empty, filled
from ldm.files import write_tensors

FILE = "prior.safetensors"
Size = tuple[int, ...]


class Prior(Protocol):
    """Something to draw codes from."""

    def save_pretrained(self, folder: Path) -> None:
        """Writes what was learnt beside the autoencoder that it is for."""
        ...

    def pictures(self, model: Any, count: int, generator: Generator) -> Tensor:
        """x (count,3,H,W), about [-1,1]."""
        ...


class NormalPrior:
    """N(0, I) over codes of a size (C,h,w)."""

    def __init__(self, size: Size):
        self.size = size

    def sample(self, count: int, generator: Generator) -> Tensor:
        """z (count,C,h,w)."""
        return torch.randn(count, *self.size, generator=generator)

    def pictures(self, model: Any, count: int, generator: Generator) -> Tensor:
        """x (count,3,H,W)."""
        return model.decode(self.sample(count, generator))

    def save_pretrained(self, folder: Path) -> None:
        """Nothing was learnt."""


class LabelledPrior(NormalPrior):
    """N(0, I), and one of a conditional autoencoder's classes for each picture, all as likely."""

    def pictures(self, model: Any, count: int, generator: Generator) -> Tensor:
        label = torch.randint(model.classes, (count,), generator=generator)
        return model.decode(self.sample(count, generator), label)


class MixturePrior(NormalPrior):
    """A mixture of normal distributions of whole codes: shares (K,), means (K,D), triangular factors (K,D,D)."""

    def __init__(self, size: Size, shares: Tensor, means: Tensor, factors: Tensor):
        super().__init__(size)
        self.shares, self.means, self.factors = shares, means, factors

    @classmethod
    @torch.no_grad()
    def fit(cls, model: Autoencoder, data: Any, components: int = 10, seed: int = 0) -> Self:
        """The codes of all the data -> the mixture that expectation maximisation finds; needs scikit-learn.

        At most as many components as there are codes; ValueError for fewer than two codes.
        """
        from sklearn.mixture import GaussianMixture

        codes = torch.cat([model.code(y).flatten(1) for y, _ in batches(data)])
        mean, deviation = codes.double().mean(0), codes.double().std(0).clamp_min(1e-12)
        mixture = GaussianMixture(min(components, len(codes)), random_state=seed, reg_covar=1e-4)
        found = mixture.fit(((codes - mean) / deviation).numpy())  # a floor of variances means as much for any scale
        factors = deviation[:, None] * torch.linalg.cholesky(torch.from_numpy(found.covariances_))
        means = mean + deviation * torch.from_numpy(found.means_)
        return cls(_size(model), torch.from_numpy(found.weights_).float(), means.float(), factors.float())

    def sample(self, count: int, generator: Generator) -> Tensor:
        which = torch.multinomial(self.shares, count, replacement=True, generator=generator)
        eps = torch.randn(count, self.means.shape[1], generator=generator)
        z = self.means[which] + torch.einsum("nij,nj->ni", self.factors[which], eps)
        return z.unflatten(1, self.size)

    def save_pretrained(self, folder: Path) -> None:
        tensors = {"shares": self.shares, "means": self.means, "factors": self.factors}
        _write(folder, tensors, {"kind": "mixture", "size": self.size})


class CodePrior:
    """Numbers of entries one after the other, row by row, of each level in turn; no two levels share a number.

    `sizes` are those of the levels (h,w), `entries` how many a codebook has.
    """

    def __init__(self, sizes: list[Size], entries: int, width: int = 128, layers: int = 4):
        from transformers import GPT2Config, GPT2LMHeadModel

        self.sizes, self.entries, self.width, self.layers = sizes, entries, width, layers
        self.start = entries * len(sizes)  # the number that stands for the beginning
        places = 1 + sum(height * columns for height, columns in sizes)
        config = GPT2Config(
            vocab_size=self.start + 1, n_positions=places, n_embd=width, n_layer=layers, n_head=max(1, width // 32),
            bos_token_id=self.start, eos_token_id=self.start,
        )  # fmt: skip
        self.network: GPT2LMHeadModel = GPT2LMHeadModel(config)

    @classmethod
    def fit(
        cls,
        model: Quantizing,
        data: Any,
        steps: int = 2000,
        width: int = 128,
        layers: int = 4,
        batch_size: int = 64,
        learning_rate: float = 1e-3,
        seed: int = 0,
    ) -> Self:
        """The codes of all the data -> a network that foretells each number from those before it."""
        torch.manual_seed(seed)
        with torch.no_grad():
            codes = [model.codes(y) for y, _ in batches(data)]
        levels = [torch.cat(level) for level in zip(*codes, strict=True)]
        prior = cls([tuple(level.shape[1:]) for level in levels], model.entries, width, layers)
        prior.learn(prior.sequences(levels), steps, batch_size, learning_rate, seed)
        return prior

    def sequences(self, levels: list[Tensor]) -> Tensor:
        """Numbers of each level (B,h,w) -> sequences (B,1+L), their beginning marked."""
        rows = [level.flatten(1) + i * self.entries for i, level in enumerate(levels)]
        return torch.cat([torch.full((len(rows[0]), 1), self.start), *rows], dim=1)

    def loss(self, sequences: Tensor) -> Tensor:
        """Sequences (B,1+L) -> -log p of each (B,), in nats."""
        logits = self.network(sequences[:, :-1]).logits.movedim(-1, 1)
        return F.cross_entropy(logits, sequences[:, 1:], reduction="none").sum(1)

    def learn(self, sequences: Tensor, steps: int, batch_size: int, learning_rate: float, seed: int) -> None:
        """Steps of AdamW under one cycle of the learning rate."""
        own = Generator().manual_seed(seed)
        optimizer = torch.optim.AdamW(self.network.parameters(), learning_rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=max(2, steps))
        self.network.train()
        for _ in trange(steps, desc="prior", disable=None):
            loss = self.loss(sequences[torch.randint(len(sequences), (batch_size,), generator=own)]).mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        self.network.eval()

    @torch.no_grad()
    def sample(self, count: int, generator: Generator) -> list[Tensor]:
        """Numbers of entries of each level (count,h,w)."""
        drawn, known = [torch.full((count, 1), self.start)], None
        for first, length in self._levels():
            for _ in range(length):
                step = self.network(drawn[-1], past_key_values=known, use_cache=True)
                known, chances = step.past_key_values, step.logits[:, -1, first : first + self.entries].softmax(-1)
                drawn.append(first + torch.multinomial(chances, 1, generator=generator))
        parts = torch.cat(drawn[1:], dim=1).split([length for _, length in self._levels()], dim=1)
        sized = zip(parts, self._levels(), self.sizes, strict=True)
        return [(part - first).unflatten(1, size) for part, (first, _), size in sized]

    def pictures(self, model: Any, count: int, generator: Generator) -> Tensor:
        """x (count,3,H,W)."""
        return model.of_codes(self.sample(count, generator))

    def save_pretrained(self, folder: Path) -> None:
        told = {"sizes": self.sizes, "entries": self.entries, "width": self.width, "layers": self.layers}
        tensors = {name: value.clone() for name, value in self.network.state_dict().items()}
        _write(folder, tensors, {"kind": "codes", **told})

    def _levels(self) -> list[tuple[int, int]]:
        """Of each level, the first of its numbers, and how many places it has."""
        return [(i * self.entries, height * width) for i, (height, width) in enumerate(self.sizes)]


def prior_of(model: Autoencoder, folder: str | Path | None = None) -> Prior:
    """The prior that was saved in a folder; where none is, that of a variational autoencoder.

    FileNotFoundError for a folder without one, and for another kind of autoencoder, which has none of its own.
    """
    path = None if folder is None else Path(folder) / FILE
    if path is None or not path.exists():
        if isinstance(model, VAE):
            return _normal(model)
        raise FileNotFoundError(f"{path or type(model).__name__}: no prior, and this kind has none of its own; fit one")
    with named(path), safe_open(path, "pt") as file:
        told = json.loads(file.metadata()["prior"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if told.pop("kind") == "mixture":
            return MixturePrior(tuple(told["size"]), **tensors)
        with empty(told):
            prior = CodePrior(**told | {"sizes": [tuple(size) for size in told["sizes"]]})
        prior.network = filled(prior.network, tensors, str(path))
        return prior


def fitted(model: Autoencoder, data: Any, steps: int = 2000, seed: int = 0) -> Prior:
    """The prior that fits the kind: N(0, I), a network over codes, trained for so many `steps`, or a mixture."""
    if isinstance(model, VAE):
        return _normal(model)
    if isinstance(model, Quantizing):
        return CodePrior.fit(model, data, steps, seed=seed)
    return MixturePrior.fit(model, data, seed=seed)


def _normal(model: VAE) -> NormalPrior:
    return (LabelledPrior if isinstance(model, ConditionalVAE) else NormalPrior)(_size(model))


def _write(folder: Path, tensors: dict[str, Tensor], told: dict[str, Any]) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    write_tensors(Path(folder) / FILE, tensors, {"prior": json.dumps(told)})


def _size(model: Autoencoder) -> Size:
    return (model.latent_channels, *model.shape.places)
