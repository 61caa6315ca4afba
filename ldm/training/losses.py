"""What an autoencoder is trained on, each term a number for each picture: two x (B,3,H,W) in [-1,1] -> (B,).

A term is a mean over the elements of its own sample, so that sizes do not change the balance between terms and no
picture's loss depends on its neighbours.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, distributed

from ldm.draws import integers

SHRINKINGS = (0.25, 0.5, 0.75, 1.0)  # of a latent's sides
DELTA, CEILING = 1e-6, 1e4  # Esser et al. 2021, eq. 7, and the bound that their weight is kept under


def per_sample(values: Tensor) -> Tensor:
    """(B,...) -> (B,): the mean over each sample."""
    return values.flatten(1).mean(1)


def precise(values: Tensor) -> Tensor:
    """What mixed precision gives, in float32; float64 stays."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def l1(y: Tensor, x: Tensor) -> Tensor:
    """Two (B,C,H,W) -> (B,): mean absolute difference."""
    return per_sample((y - x).abs())


def mse(y: Tensor, x: Tensor) -> Tensor:
    """Two (B,C,H,W) -> (B,): mean squared difference."""
    return per_sample((y - x).square())


def kl(mean: Tensor, logvar: Tensor) -> Tensor:
    """Mean and log-variance (B,C,h,w) -> (B,) nats an element: KL(N(mean, e^logvar) || N(0, I)).

    Kingma and Welling 2014, appendix B, over the number of elements.
    """
    return per_sample(0.5 * (mean.square() + logvar.exp() - 1 - logvar))


# ---- against a discriminator ----


def hinge(real: Tensor, fake: Tensor) -> Tensor:
    """What a discriminator says of each patch (B,1,h,w) of pictures and of their twins -> (B,): its own loss.

    Lim and Ye 2017; halved, as Esser et al. 2021 have it.
    """
    return 0.5 * (per_sample(F.relu(1 - real)) + per_sample(F.relu(1 + fake)))


def unconvincing(fake: Tensor) -> Tensor:
    """What a discriminator says of each patch (B,1,h,w) of reconstructions -> (B,): the autoencoder's loss."""
    return -per_sample(fake)


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last: Tensor, samples: int) -> Tensor:
    """Two losses (), the decoder's last weights -> (): |d reconstruction / d last| / |d adversarial / d last|.

    Times this the adversarial loss pulls as hard as the other (Esser et al. 2021, eq. 7). No gradient flows through it.
    Each loss is a mean over `samples`; of processes that share a batch every one gives the weight of the whole batch,
    as the gradients' mean is taken before their norms. Parts that are accumulated have a weight each.
    """
    both = (torch.autograd.grad(loss, last, retain_graph=True)[0] for loss in (reconstruction, adversarial))
    gradients = _over_processes(torch.stack([gradient.flatten() for gradient in both]), samples)
    pulls = torch.linalg.vector_norm(gradients, dim=1)
    return (pulls[0] / (pulls[1] + DELTA)).clamp(max=CEILING)


def _over_processes(mean: Tensor, samples: int) -> Tensor:
    """A mean over this process's samples -> that over all processes' samples."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return mean
    sums = torch.cat([samples * mean.flatten(), mean.new_tensor([samples])])
    distributed.all_reduce(sums)
    return (sums[:-1] / sums[-1]).view_as(mean)


# ---- equivariance ----


def equivariance(decode: Callable[[Tensor], Tensor], z: Tensor, x: Tensor, generators: Sequence[Generator]) -> Tensor:
    """z (B,C,h,h) and its x (B,3,H,H) -> (B,): L1 + MSE of the changed latents' pictures against the changed pictures.

    A change is a shrinking and quarter turns, drawn from each sample's own generator (EQ-VAE, Kouzelis et al. 2025,
    arXiv 2502.09509; there any scale from a quarter on, here one of four, so that samples are decoded together).
    """
    factor, changes = x.shape[-1] // z.shape[-1], drawn_changes(generators, z.shape[-1])
    result = z.new_zeros(len(z))
    for side in {side for side, _ in changes}:
        rows = {i: turns for i, (own, turns) in enumerate(changes) if own == side}
        y = decode(torch.cat([changed(z[i : i + 1], side, turns) for i, turns in rows.items()]))
        wanted = torch.cat([changed(x[i : i + 1], side * factor, turns) for i, turns in rows.items()])
        result[list(rows)] = l1(y, wanted) + mse(y, wanted)
    return result


def drawn_changes(generators: Sequence[Generator], side: int) -> list[tuple[int, int]]:
    """Generators, side of a latent -> for each sample the side that it shrinks to, and its quarter turns."""
    scales, turns = integers(generators, 0, len(SHRINKINGS)), integers(generators, 0, 4)
    return [(max(1, round(SHRINKINGS[s] * side)), k) for s, k in zip(scales.tolist(), turns.tolist(), strict=True)]


def changed(values: Tensor, side: int, turns: int) -> Tensor:
    """(B,C,H,H) -> (B,C,side,side): shrunk without aliasing, then turned by quarters anticlockwise."""
    if values.shape[-1] != side:
        values = F.interpolate(values, (side, side), mode="bilinear", antialias=True)
    return values.rot90(turns, (-2, -1))
