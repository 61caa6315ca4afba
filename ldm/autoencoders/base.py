"""What every autoencoder of pictures is: x (B,3,H,W) in [-1,1] --encode--> z (B,C,h,w) --decode--> x, and its losses.

Inside, pictures are y (B,channels,H,W) in [0,1]; a grey one takes the mean of the colours, and gives it back as each of
them. So every one of them is a first stage: `LatentSpace(autoencoder)`.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Generator, Tensor, nn

from ldm import checkpoints
from ldm.autoencoders.likelihoods import likelihood_of
from ldm.autoencoders.networks import Shape, decoder, encoder
from ldm.files import write_json, write_tensors


class Batch(NamedTuple):
    """Pictures y (B,channels,H,W) in [0,1], and the class of each (B,) where there are classes."""

    y: Tensor
    label: Tensor | None = None


def batches(data: Any, size: int = 256, count: int | None = None) -> Iterator[Batch]:
    """Data whose `batch(indices)` gives (y, labels) -> all of them, or the first `count`, in order."""
    end = len(data) if count is None else min(count, len(data))
    for start in range(0, end, size):
        yield Batch(*data.batch(range(start, min(start + size, end))))


class Model(nn.Module):
    """Losses by name; and what the constructor was told, under the same names, by which it comes back from disk.

    `likelihood` is "bernoulli" or "gaussian", with the standard deviation `sigma` in units of [0,1].
    """

    weights: Mapping[str, float] = {}  # how much each loss counts; 1 for one that is not named
    splits = True  # the parts of a batch may be learnt from one by one: nothing depends on the batch as a whole

    def __init__(self, shape: Shape, likelihood: str, sigma: float):
        super().__init__()
        self.shape, self.likelihood, self.sigma = shape, likelihood, sigma
        self.pixels = likelihood_of(likelihood, sigma)

    def losses(self, batch: Batch, generators: Sequence[Generator]) -> dict[str, Tensor]:
        """Pictures, and a generator for each -> the parts of what is minimised, each (B,), reconstruction in nats."""
        raise NotImplementedError

    def loss(self, parts: Mapping[str, Tensor]) -> Tensor:
        """The parts of `losses` -> what is minimised (B,)."""
        return torch.stack([self.weights.get(name, 1.0) * part for name, part in parts.items()]).sum(0)

    @property
    def config(self) -> dict[str, Any]:
        """What it was made by, in JSON."""
        told = {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}
        return {"_class_name": type(self).__name__} | {
            name: asdict(value) if isinstance(value, Shape) else value for name, value in told.items()
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """What `config` gave -> a new model; entries that the constructor does not take are left out."""
        known = inspect.signature(cls).parameters
        told = {name: value for name, value in config.items() if name in known}
        return cls(**told | ({"shape": Shape(**told["shape"])} if "shape" in told else {}))

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes config.json and safetensors, named as diffusers names them."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.json", self.config)
        write_tensors(folder / "diffusion_pytorch_model.safetensors", self.state_dict())

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """What `save_pretrained` wrote; ValueError where that was another class."""
        found: Any = checkpoints.load_vae(folder)
        if not isinstance(found, cls):
            raise ValueError(f"{folder} holds a {type(found).__name__}; expected a {cls.__name__}")
        return found


class Autoencoder(Model):
    """An encoder and a decoder of a shape, and how pixels are distributed about what the decoder puts out.

    `likelihood` is "bernoulli", the cross-entropy of sigmoid outputs, or "gaussian", squared errors over 2 sigma^2,
    `sigma` in units of [0,1]. ValueError for another, and for a sigma that is not above 0.
    """

    def __init__(self, shape: Shape = Shape(), likelihood: str = "bernoulli", sigma: float = 1.0):  # noqa: B008
        super().__init__(shape, likelihood, sigma)
        self.encoder, self.decoder = encoder(shape, self.features), decoder(shape)
        # of each channel of a code, by which `LatentSpace` makes them 0 and 1: a training measures them
        self.latents_mean, self.latents_std = [0.0] * self.latent_channels, [1.0] * self.latent_channels

    @property
    def features(self) -> int:
        """Numbers that the encoder gives for each place of the code."""
        return self.shape.code

    @property
    def config(self) -> dict[str, Any]:
        return super().config | {
            "latent_channels": self.latent_channels, "factor": self.shape.factor, "scaling_factor": 1.0,
            "sample_size": list(self.shape.size), "latents_mean": self.latents_mean, "latents_std": self.latents_std,
        }  # fmt: skip

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        made = super().from_config(config)
        made.latents_mean = config.get("latents_mean", made.latents_mean)
        made.latents_std = config.get("latents_std", made.latents_std)
        return made

    @property
    def latent_channels(self) -> int:
        """C, the channels of z."""
        return self.shape.code

    # ---- a first stage: x <-> z ----

    def encode(self, x: Tensor) -> Any:
        """x (B,3,H,W) in [-1,1] -> z (B,C,h,w)."""
        return self.code(self.to_y(x))

    def decode(self, z: Tensor) -> Tensor:
        """z (B,C,h,w) -> x (B,3,H,W), about [-1,1]."""
        return self.to_x(self.pixels.mean(self.decoder(z)))

    def to_y(self, x: Tensor) -> Tensor:
        """x (B,3,H,W) in [-1,1] -> y (B,channels,H,W) in [0,1]; ValueError for another size than a vector's."""
        if self.shape.places == (1, 1) and x.shape[-2:] != self.shape.size:
            raise ValueError(
                f"pictures of {tuple(x.shape[-2:])}: expected {self.shape.size}, as its code is one vector"
            )
        y = (x + 1) / 2
        return y.mean(1, keepdim=True) if self.shape.channels == 1 else y

    def to_x(self, y: Tensor) -> Tensor:
        """y (B,channels,H,W) in [0,1] -> x (B,3,H,W) in [-1,1]."""
        return (2 * y - 1).expand(-1, 3, -1, -1)

    # ---- in units of [0,1] ----

    def code(self, y: Tensor) -> Tensor:
        """y (B,channels,H,W) -> z (B,C,h,w)."""
        return self.encoder(y)

    def reconstruct(self, y: Tensor, label: Tensor | None = None) -> Tensor:
        """y (B,channels,H,W), classes (B,) for what is told them -> what is expected there and back."""
        return self.pixels.mean(self.decoder(self.code(y)))
