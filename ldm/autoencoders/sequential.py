"""A VAE of sequences (Srivastava et al. 2015; Bowman et al. 2016): frames y (B,T,channels,H,W) <-> one code z (B,code).

frames --features--> (B,T,F) --GRU, its last state--> q(z | y);   z --GRU--> (B,T,F) --decoder--> frames
"""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from ldm.autoencoders.base import Batch, Model
from ldm.autoencoders.networks import Shape, decoder, encoder
from ldm.autoencoders.variational import Normal, importance_weighted


class Frames(nn.Module):
    """Frames (B,T,channels,H,W) -> features of each (B,T,F), and features -> what the likelihood takes.

    `shape` is that of a frame whose code are the F features, one vector.
    """

    def __init__(self, shape: Shape):
        super().__init__()
        if shape.places != (1, 1):
            raise ValueError(f"{shape}: expected a vector for each frame: a dense network, or vector=True")
        self.encoder, self.decoder = encoder(shape, shape.code), decoder(shape)

    def read(self, y: Tensor) -> Tensor:
        return self.encoder(y.flatten(0, 1)).flatten(1).unflatten(0, y.shape[:2])

    def write(self, features: Tensor) -> Tensor:
        """(...,F) -> (...,channels,H,W)."""
        flat = features.flatten(0, -2)
        return self.decoder(flat[:, :, None, None]).unflatten(0, features.shape[:-1])


class SequentialVAE(Model):
    """Sequences y (B,T,channels,H,W) in [0,1] <-> one code z (B,code) ~ N(0, I), whatever their length T.

    `shape` is that of a frame, its features as code; `hidden` is the size of both GRUs. Its losses are the parts of the
    negative ELBO, in nats per sequence (Srivastava et al. 2015; Bowman et al. 2016). ValueError for sizes below 1, and
    for a shape whose frames are no vectors.
    """

    def __init__(
        self,
        shape: Shape = Shape((16, 16), 1, 64, "dense", (256,)),  # noqa: B008
        likelihood: str = "bernoulli",
        sigma: float = 1.0,
        code: int = 32,
        hidden: int = 128,
    ):
        super().__init__(shape, likelihood, sigma)
        if min(code, hidden) < 1:
            raise ValueError(f"code {code}, hidden {hidden}: expected 1 or more of each")
        self.code, self.hidden = code, hidden
        self.frames = Frames(shape)
        self.reader = nn.GRU(shape.code, hidden, batch_first=True)
        self.posterior_of = nn.Linear(hidden, 2 * code)
        self.start = nn.Linear(code, hidden)
        self.writer = nn.GRU(code, hidden, batch_first=True)
        self.features = nn.Linear(hidden, shape.code)

    def posterior(self, y: Tensor) -> Normal:
        """Frames (B,T,channels,H,W) -> q(z | y), z (B,code)."""
        _, last = self.reader(self.frames.read(y))
        return Normal.of(self.posterior_of(last[0]))

    def output(self, z: Tensor, length: int) -> Tensor:
        """z (B,code) -> `length` frames, before they are pixels (B,T,channels,H,W)."""
        states, _ = self.writer(z[:, None].expand(-1, length, -1), torch.tanh(self.start(z))[None])
        return self.frames.write(self.features(states))

    def sample(self, z: Tensor, length: int) -> Tensor:
        """z (B,code) ~ N(0, I) -> the frames that are expected (B,T,channels,H,W)."""
        return self.pixels.mean(self.output(z, length))

    def reconstruct(self, y: Tensor, label: Tensor | None = None) -> Tensor:
        """Frames (B,T,channels,H,W) -> what is expected there and back, by the posterior's mean."""
        return self.sample(self.posterior(y).mean, y.shape[1])

    def log_likelihood(self, batch: Batch, generators: Sequence[Generator], samples: int = 100) -> Tensor:
        """A lower bound of log p(y) (B,) of sequences, in nats, that tends to it with `samples`."""
        q, length = self.posterior(batch.y), batch.y.shape[1]
        return importance_weighted(q, lambda z: self.pixels.nll(self.output(z, length), batch.y), generators, samples)

    def losses(self, batch: Batch, generators: Sequence[Generator]) -> dict[str, Tensor]:
        """Frames (B,T,channels,H,W), a generator for each sequence -> nats per sequence (B,)."""
        q = self.posterior(batch.y)
        output = self.output(q.sample(generators), batch.y.shape[1])
        return {"reconstruction": self.pixels.nll(output, batch.y), "kl": q.kl()}
