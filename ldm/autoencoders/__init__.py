"""The autoencoder family: each a first stage of latent diffusion, `LatentSpace(autoencoder)`, and each its own paper.

networks.py      a shape -> encoder and decoder, fully connected or convolutional
likelihoods.py   what a decoder puts out -> pixels, and nats
base.py          Autoencoder: x <-> z, losses by name; saved and loaded
plain.py         AE, DenoisingAE, SparseAE, ContractiveAE: the code is a function
variational.py   VAE, BetaVAE, ConditionalVAE: the code is a distribution
quantized.py     VQVAE, VQVAE2: the code is made of a codebook's entries
sequential.py    SequentialVAE: a code for all of a sequence
temporal.py      TDVAE: states of a sequence, each foreseen from one long before
presets.py       all of them by name, and shapes that go with data
priors.py        what codes are drawn from, so that every one of them generates
"""

from ldm.autoencoders.base import Autoencoder, Batch
from ldm.autoencoders.networks import Shape
from ldm.autoencoders.plain import AE, ContractiveAE, DenoisingAE, SparseAE
from ldm.autoencoders.presets import KINDS
from ldm.autoencoders.quantized import VQVAE, VQVAE2
from ldm.autoencoders.sequential import SequentialVAE
from ldm.autoencoders.temporal import TDVAE
from ldm.autoencoders.variational import VAE, BetaVAE, ConditionalVAE
from ldm.checkpoints.modules import REGISTERED

REGISTERED |= {kind.__name__: kind.from_config for kind in KINDS.values()}

__all__ = [
    "AE",
    "KINDS",
    "VAE",
    "VQVAE",
    "VQVAE2",
    "TDVAE",
    "SequentialVAE",
    "Autoencoder",
    "Batch",
    "BetaVAE",
    "ConditionalVAE",
    "ContractiveAE",
    "DenoisingAE",
    "Shape",
    "SparseAE",
]
