"""TD-VAE (Gregor et al. 2019): states at two times, the second foreseen from the first without those between.

frames --GRU--> beliefs b_t;   t1 < t2, a jump of d = t2 - t1

belief      p_B(z | b_t)                 what is known at t
smoothing   q_S(z_1 | z_2, b_1, b_2, d)  what must have been at t1, given what is at t2
transition  p_P(z_2 | z_1, d)            where the state will be, in one jump
decoder     p_D(y | z)

loss = KL(q_S || p_B at t1) + log p_B(z_2 | b_2) - log p_P(z_2 | z_1) - log p_D(y_2 | z_2)    (equation 7)
"""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from ldm.autoencoders.base import Batch, Model
from ldm.autoencoders.networks import Shape
from ldm.autoencoders.sequential import Frames
from ldm.autoencoders.variational import Normal


class Gated(nn.Module):
    """Inputs side by side (B,...) -> a normal distribution of states: tanh times sigmoid, then both heads.

    Gregor et al. 2019, appendix D ("D-map").
    """

    def __init__(self, inputs: int, hidden: int, state: int):
        super().__init__()
        self.inner, self.gate = nn.Linear(inputs, hidden), nn.Linear(inputs, hidden)
        self.heads = nn.Linear(hidden, 2 * state)

    def forward(self, *inputs: Tensor) -> Normal:
        known = torch.cat(inputs, dim=1)
        return Normal.of(self.heads(torch.tanh(self.inner(known)) * torch.sigmoid(self.gate(known))), -10, 10)


class TDVAE(Model):
    """Sequences y (B,T,channels,H,W) in [0,1] -> beliefs, and states z (B,state) that are foreseen over a jump of d.

    `shape` is that of a frame, with its features as code; `state` numbers are the state, `jump` the longest d. In
    training each sequence is asked about one pair of times, d uniform in 1..`jump` and then t1 uniform (Gregor et al.
    2019, equation 7). ValueError for sizes below 1, and for a shape whose frames are no vectors.
    """

    def __init__(
        self,
        shape: Shape = Shape((16, 16), 1, 64, "dense", (256,)),  # noqa: B008
        likelihood: str = "bernoulli",
        sigma: float = 1.0,
        state: int = 16,
        hidden: int = 128,
        jump: int = 4,
    ):
        super().__init__(shape, likelihood, sigma)
        if min(state, hidden, jump) < 1:
            raise ValueError(f"state {state}, hidden {hidden}, jump {jump}: expected 1 or more of each")
        self.state, self.hidden, self.jump = state, hidden, jump
        self.frames = Frames(shape)
        self.reader = nn.GRU(shape.code, hidden, batch_first=True)
        self.belief = Gated(hidden, hidden, state)
        self.smoothing = Gated(2 * hidden + state + 1, hidden, state)
        self.transition = Gated(state + 1, hidden, state)
        self.features = nn.Sequential(nn.Linear(state, hidden), nn.ReLU(), nn.Linear(hidden, shape.code))

    def beliefs(self, y: Tensor) -> Tensor:
        """Frames (B,T,channels,H,W) -> what is known at each time (B,T,hidden)."""
        return self.reader(self.frames.read(y))[0]

    def foresee(self, z: Tensor, jump: Tensor) -> Normal:
        """A state (B,state) and how far to jump (B,) -> the state there."""
        return self.transition(z, self._share(jump))

    def output(self, z: Tensor) -> Tensor:
        """A state (B,state) -> what the likelihood takes (B,channels,H,W)."""
        return self.frames.write(self.features(z))

    def losses(self, batch: Batch, generators: Sequence[Generator]) -> dict[str, Tensor]:
        """Frames (B,T,channels,H,W), a generator for each sequence -> nats about the frame at t2 (B,)."""
        known, (first, second) = self.beliefs(batch.y), self.times(batch.y.shape[1], generators)
        rows = torch.arange(len(batch.y))
        b_1, b_2, jump = known[rows, first], known[rows, second], (second - first).to(batch.y.device)
        then, now = self.belief(b_1), self.belief(b_2)
        z_2 = _drawn(now, generators)
        smoothed = self.smoothing(b_1, b_2, z_2, self._share(jump))
        z_1 = _drawn(smoothed, generators)
        return {
            "reconstruction": self.pixels.nll(self.output(z_2), batch.y[rows, second]),
            "kl": divergence(smoothed, then),
            "transition": now.log_density(z_2) - self.foresee(z_1, jump).log_density(z_2),
        }

    def times(self, length: int, generators: Sequence[Generator]) -> tuple[Tensor, Tensor]:
        """The length of sequences -> t1 < t2 of each (B,). ValueError for sequences of one frame."""
        if length < 2:
            raise ValueError(f"sequences of {length} frames: expected 2 or more")
        longest = min(self.jump, length - 1)
        jumps = [int(torch.randint(1, longest + 1, (), generator=own)) for own in generators]
        firsts = [int(torch.randint(length - d, (), generator=own)) for d, own in zip(jumps, generators, strict=True)]
        first = torch.tensor(firsts)
        return first, first + torch.tensor(jumps)

    @torch.no_grad()
    def rollout(self, y: Tensor, jumps: Sequence[int], generators: Sequence[Generator] | None = None) -> Tensor:
        """Frames seen (B,T,channels,H,W) and jumps from the last -> what is foreseen (B,len(jumps),channels,H,W).

        With generators states are drawn, else each is the mean of its distribution. ValueError for no jumps, and for
        one that training has not asked for.
        """
        if not jumps or not 1 <= min(jumps) <= max(jumps) <= self.jump:
            raise ValueError(f"jumps {list(jumps)}: expected one or more, of 1 to {self.jump} frames")
        z, frames = _drawn(self.belief(self.beliefs(y)[:, -1]), generators), []
        for jump in jumps:
            z = _drawn(self.foresee(z, torch.full((len(y),), jump, device=y.device)), generators)
            frames.append(self.pixels.mean(self.output(z)))
        return torch.stack(frames, dim=1)

    def _share(self, jump: Tensor) -> Tensor:
        """(B,) -> (B,1): of the longest jump."""
        return (jump / self.jump)[:, None]


def divergence(one: Normal, other: Normal) -> Tensor:
    """KL of `one` from `other` (B,), in nats, in closed form."""
    squares = ((one.mean - other.mean).square() + one.logvar.exp()) * torch.exp(-other.logvar)
    return 0.5 * (squares - 1 + other.logvar - one.logvar).flatten(1).sum(1)


def _drawn(distribution: Normal, generators: Sequence[Generator] | None) -> Tensor:
    return distribution.mean if generators is None else distribution.sample(generators)
