"""The family by name, and shapes that go with data."""

from collections.abc import Mapping
from inspect import signature
from typing import Any

from ldm.autoencoders.base import Model
from ldm.autoencoders.networks import Shape
from ldm.autoencoders.plain import AE, ContractiveAE, DenoisingAE, SparseAE
from ldm.autoencoders.quantized import VQVAE, VQVAE2
from ldm.autoencoders.sequential import SequentialVAE
from ldm.autoencoders.temporal import TDVAE
from ldm.autoencoders.variational import VAE, BetaVAE, ConditionalVAE

KINDS: dict[str, type[Model]] = {
    "ae": AE, "denoising": DenoisingAE, "sparse": SparseAE, "contractive": ContractiveAE,
    "vae": VAE, "beta": BetaVAE, "conditional": ConditionalVAE, "vq": VQVAE, "vq2": VQVAE2,
    "sequential": SequentialVAE, "td": TDVAE,
}  # fmt: skip
SHAPES = {
    "784-400-20": Shape((28, 28), 1, 20, "dense", (400,)),  # for MNIST
    "binary-mnist": Shape((28, 28), 1, 40, "dense", (400,)),  # for binarised MNIST
    "digits": Shape((8, 8), 1, 10, "dense", (128, 64)),  # scikit-learn's
    "plane": Shape((8, 8), 1, 2, "dense", (128, 64)),  # the same with codes to look at
    "digits-conv": Shape((8, 8), 1, 4, "conv", (32, 64)),  # codes of 2 x 2 places
    "frames": Shape((16, 16), 1, 64, "dense", (256,)),  # of sequences; the code is a frame's features
    "pictures": Shape((32, 32), 3, 16, "conv", (48, 96)),  # codes of 8 x 8 places
}
PLANS: dict[str, dict[str, Any]] = {  # how long a training takes that a preset stands for, where it stands for one
    "binary-mnist": {"steps": 300_000, "batch_size": 100},  # 500 epochs; a test log-likelihood of about -89.8 nats
}


def kind_of(name: str) -> type[Model]:
    """ValueError for a name that none of KINDS has."""
    if name not in KINDS:
        raise ValueError(f"autoencoder {name!r}: expected one of {', '.join(KINDS)}")
    return KINDS[name]


def own_settings(kind: type[Model]) -> list[str]:
    """What a kind is told beside its shape: names of its constructor's arguments."""
    return [name for name in signature(kind).parameters if name != "shape"]


def made(name: str, shape: Shape, told: Mapping[str, Any]) -> Model:
    """A new model of KINDS; ValueError for a setting that this kind does not have."""
    kind = kind_of(name)
    known = own_settings(kind)
    for setting in told:
        if setting not in known:
            raise ValueError(f"{setting}: {name} is told {', '.join(known)}")
    return kind(shape, **told)  # type: ignore[call-arg]
