"""Pictures of what an autoencoder has learnt, each one call: (model, ...) -> a PIL image.

    reconstructions   originals over what comes back
    samples           drawn from a prior
    interpolation     from one picture's code to another's, straight; the blend of the pixels below
    traversal         a row for each number of a code, as it goes from low to high
    undone            clean, corrupted, and put right, of a denoising one
    scatter           codes in the plane, coloured by class; above two dimensions by their principal components
    use               how often each entry of a codebook is taken
    sequences         frames over what comes back; rollout: frames seen, then what was to come over what was foreseen

Small pictures are enlarged by whole pixels, so that what is seen is what there is.
"""

import io
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Generator, Tensor

from ldm.autoencoders import TDVAE, Autoencoder, DenoisingAE, SequentialVAE
from ldm.autoencoders.quantized import Quantizing
from ldm.evaluation.autoencoders import third
from ldm.images import grid, to_images

LEAST = 64  # pixels that a small picture's longer side is enlarged to, or a little below


def portraits(model: Any, data: Any, prior: Any = None) -> dict[str, Callable[[], Image.Image]]:
    """A model, data that it has not seen and, where it generates, its prior -> everything above that it can be shown
    in, by name, each made when it is called. A rollout begins with a third of the frames.
    """
    first = partial(_first, data)
    if isinstance(model, TDVAE):
        return {"rollout": lambda: rollout(model, y := first(6), third(y.shape[1]))}
    if isinstance(model, SequentialVAE):
        drawn = partial(flights, model, data.batch([0])[0].shape[1])
        return {"sequences": lambda: sequences(model, first(6)), "samples": drawn}
    found = {
        "reconstructions": lambda: reconstructions(model, first(16)),
        "interpolation": lambda: interpolation(model, first(8)),
        "traversal": lambda: traversal(model, first(256)),
        "scatter": lambda: scatter(model, *data.batch(range(min(2000, len(data))))),
    }
    if prior is not None:
        found["samples"] = lambda: samples(model, prior)
    if isinstance(model, DenoisingAE):
        found["undone"] = lambda: undone(model, first(16))
    if isinstance(model, Quantizing):
        found["use"] = lambda: use(model, first(1000))
    return found


def _first(data: Any, count: int) -> Tensor:
    return data.batch(range(min(count, len(data))))[0]


@torch.no_grad()
def reconstructions(model: Autoencoder, y: Tensor) -> Image.Image:
    """Pictures y (B,channels,H,W) -> two rows."""
    return _rows([y, model.reconstruct(y)])


@torch.no_grad()
def samples(model: Autoencoder, prior: Any, count: int = 64, seed: int = 0) -> Image.Image:
    """A square of pictures from the prior (see `autoencoders.priors`)."""
    x = prior.pictures(model, count, Generator().manual_seed(seed))
    return grid(_images(model.to_y(x)))


@torch.no_grad()
def interpolation(model: Autoencoder, y: Tensor, frames: int = 9) -> Image.Image:
    """Pairs y (2B,channels,H,W), each with the next -> a strip for each pair; ValueError for no pair.

    With codes of no structure what lies midway is often nothing; compare it with the plain blend below.
    """
    if len(y) < 2:
        raise ValueError("one picture: expected two, to go from one to the other")
    ways = torch.linspace(0, 1, frames)
    rows = []
    for one, other in zip(y[::2], y[1::2], strict=False):
        codes = model.code(torch.stack([one, other]))
        between = torch.stack([torch.lerp(codes[0], codes[1], way) for way in ways])
        rows += [model.to_y(model.decode(between)), torch.stack([torch.lerp(one, other, way) for way in ways])]
    return _rows(rows)


@torch.no_grad()
def traversal(model: Autoencoder, y: Tensor, span: float = 3.0, frames: int = 9, most: int = 12) -> Image.Image:
    """Pictures y (B,channels,H,W) -> the first of them changed: a row for each of up to `most` numbers of its code.

    Those come first that vary most over the pictures. Each goes `span` of its standard deviations to either side of its
    mean; where the code is a map, in all places alike.
    """
    codes = model.code(y)
    rows = []
    for number in codes.movedim(1, 0).flatten(1).var(1).argsort(descending=True)[:most].tolist():
        changed, way = codes[:1].repeat(frames, 1, 1, 1), torch.linspace(-span, span, frames).view(-1, 1, 1)
        changed[:, number] = model.latents_mean[number] + model.latents_std[number] * way
        rows.append(model.to_y(model.decode(changed)))
    return _rows(rows)


@torch.no_grad()
def undone(model: DenoisingAE, y: Tensor, seed: int = 0) -> Image.Image:
    """Pictures y (B,channels,H,W) -> three rows: clean, corrupted, put right."""
    seen = model.seen(y, [Generator().manual_seed(seed + i) for i in range(len(y))])
    return _rows([y, seen, model.reconstruct(seen)])


@torch.no_grad()
def sequences(model: SequentialVAE, y: Tensor) -> Image.Image:
    """Frames y (B,T,channels,H,W) -> two rows for each sequence."""
    return _rows(list(chain.from_iterable(zip(y, model.reconstruct(y), strict=True))))


@torch.no_grad()
def flights(model: SequentialVAE, length: int, count: int = 8, seed: int = 0) -> Image.Image:
    """Codes from N(0, I) -> a row for each sequence of `length` frames."""
    z = torch.randn(count, model.code, generator=Generator().manual_seed(seed))
    return _rows(list(model.sample(z, length)))


@torch.no_grad()
def rollout(model: TDVAE, y: Tensor, seen: int) -> Image.Image:
    """Frames y (B,T,channels,H,W), the first `seen` of which are shown to the model -> two rows for each sequence.

    Above all frames; below those seen, then what was foreseen, step by step.
    """
    if seen >= y.shape[1]:
        raise ValueError(f"sequences of {y.shape[1]} frames: expected more than the {seen} that are shown")
    foreseen = model.rollout(y[:, :seen], [1] * (y.shape[1] - seen))
    told = torch.cat([y[:, :seen], foreseen], dim=1)
    return _rows(list(chain.from_iterable(zip(y, told, strict=True))))


@torch.no_grad()
def scatter(model: Autoencoder, y: Tensor, label: Tensor | None = None) -> Image.Image:
    """Pictures y (B,channels,H,W) and their classes (B,) -> their codes as points; needs matplotlib."""
    codes = model.code(y).flatten(1)
    names = ("z_1", "z_2")
    if codes.shape[1] > 2:
        centred = codes - codes.mean(0)
        directions = torch.linalg.svd(centred, full_matrices=False).Vh[:2]
        share = float((centred @ directions.t()).square().sum() / centred.square().sum())
        codes = centred @ directions.t()
        names = ("first principal component", f"second (both: {share:.0%} of the variance)")
    figure, axes = _figure((6, 5))
    places = codes.t() if codes.shape[1] == 2 else (codes[:, 0], torch.zeros(len(codes)))
    points = axes.scatter(*places, s=6, **({} if label is None else {"c": label, "cmap": "tab10"}))
    if label is not None:
        axes.legend(*points.legend_elements(num=None), title="class", fontsize=8)
    axes.set(xlabel=names[0], ylabel=names[1])
    return _drawn(figure)


@torch.no_grad()
def use(model: Quantizing, y: Tensor) -> Image.Image:
    """Pictures y (B,channels,H,W) -> a bar for each entry, the most used first, of each level; needs matplotlib."""
    levels = model.codes(y)
    figure, axes = _figure((6, 3.5))
    for codes, (name, value) in zip(levels, model.used(levels).items(), strict=True):
        shares = torch.bincount(codes.flatten(), minlength=model.entries).sort(descending=True).values / codes.numel()
        words = f"{name.replace('_', ' ')} {value:.1f} of {model.entries}"
        axes.step(range(model.entries), shares, where="mid", label=words)
    axes.set(xlabel="entry, the most used first", ylabel="share of the places", ylim=(0, None))
    axes.legend(fontsize=8)
    return _drawn(figure)


def _rows(rows: Sequence[Tensor]) -> Image.Image:
    """Rows of pictures (N,channels,H,W) in [0,1], each of the same number -> one image."""
    return grid([image for row in rows for image in _images(row)], columns=len(rows[0]))


def _images(y: Tensor) -> list[Image.Image]:
    """(N,channels,H,W) in [0,1] -> images, small ones enlarged by a whole factor."""
    factor = max(1, LEAST // max(y.shape[-2:]))
    return [ImageOps.scale(image, factor, Image.Resampling.NEAREST) for image in to_images(2 * y - 1)]


def _figure(size: tuple[float, float]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(size, layout="constrained")
    return figure, figure.add_subplot()


def _drawn(figure: Any) -> Image.Image:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return Image.open(file).convert("RGB")
