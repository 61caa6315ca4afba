"""LatentSpace: images and pixels x (B,3,H,W) in [-1,1] <-> clean latents z_0 (B,C,H/f,W/f).

    x --encoder--> raw --(raw - shift) * scale--> z_0 --z_0 / scale + shift--> raw --decoder--> x

Whoever encodes also scales: nothing outside of this file knows a scale. Results are float32, on the autoencoder's
device, and finite: an image that overflows is done once more in float32, and is an error if that does not help
(`ldm.precision`). Without gradients a picture that is large is done in tiles, to the same result (`ldm.tiling`).
"""

from __future__ import annotations

import json
import logging
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from ldm.files import write_json
from ldm.images import Range, Source, crop, pad, to_images, to_pixels
from ldm.precision import NonFiniteError, Part, decoding, encoding, home, lost, numbered, plain, precise
from ldm.roundtrip import Pair, RoundTrip, roundtrip
from ldm.tiling import Tiling, in_pieces, ladder, out_of_memory

if TYPE_CHECKING:
    from PIL import Image

# The inverse standard deviation of the latents of Stable Diffusion's f8 KL autoencoder, over a first batch of pictures:
# times this their variance is about 1, as a diffusion process expects (Rombach et al. 2022, section 4.3.2, appendix G).
SCALE = 0.18215
EXPECTED_STD = (0.7, 1.4)  # outside of this the scale does not fit the pictures
PROBE = 64  # pixels

Affine: TypeAlias = "float | Tensor"  # one number, or (C,) one for each channel
Way: TypeAlias = "Callable[[Any, Part, Tensor], Tensor]"  # to run a part: `plain`, `precise`, or the one then the other

log = logging.getLogger("ldm")


@dataclass(frozen=True)
class Statistics:
    """Moments of posterior samples z_0 over `count` pictures; with the `fitting_scale` for scale, `std` would be 1."""

    count: int
    mean: float
    std: float
    channel_mean: tuple[float, ...]
    channel_std: tuple[float, ...]
    fitting_scale: float


class LatentSpace:
    """An autoencoder and the affine map that gives its latents unit variance: x <-> z_0 = (raw - shift) * scale.

    `autoencoder` has `encode(x)` and `decode(raw)`: tensors out, or what diffusers' autoencoders give. `scale` and
    `shift` are a number or (C,) numbers: the argument, else what the autoencoder's config names (scaling_factor,
    shift_factor, latents_mean, latents_std, as diffusers uses them), else SCALE and 0. `factor` f is the number of
    pixels to a latent along each side; where neither the argument nor the config tells, it is found by encoding once.

    `memory` is "auto": pictures above 2.5 megapixels go in tiles, and a batch that is larger in parts; "low": one by
    one, and in tiles above 1 megapixel; "min": in small tiles whenever larger than one; or a `tiling.Tiling`. Whichever
    it is, memory that runs out leads to smaller pieces from there on, until `memory` is set again.

    ValueError for a scale that is 0, not finite, or not one for each channel, and for an unknown `memory`.

    >>> from PIL import Image
    >>> space = LatentSpace.from_pretrained("emoji")
    >>> z = space.encode(Image.new("RGB", (60, 40), "teal"))
    >>> tuple(z.shape), space.factor, space.scale == SCALE
    ((1, 4, 5, 8), 8, True)
    >>> space.decode(z, size=(40, 60))[0].size
    (60, 40)
    """

    def __init__(
        self,
        autoencoder: Any,
        scale: float | Sequence[float] | Tensor | None = None,
        shift: float | Sequence[float] | Tensor | None = None,
        factor: int | None = None,
        memory: str | Tiling = "auto",
    ):
        self.autoencoder = autoencoder
        self._told: set[tuple[Part, torch.dtype]] = set()
        self.scale = _checked("scale", _named_scale(autoencoder) if scale is None else scale)
        self.shift = _checked("shift", _named_shift(autoencoder) if shift is None else shift)
        if not torch.as_tensor(self.scale).all():
            raise ValueError(f"scale {scale}: expected no 0")
        if factor is not None:
            self.factor = factor
        self.memory = memory
        for name, value in (("scale", self.scale), ("shift", self.shift)):
            if isinstance(value, Tensor) and len(value) != self.channels:
                raise ValueError(f"{name} of {len(value)} numbers for {self.channels} channels")

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        subfolder: str | None = None,
        scale: float | Sequence[float] | Tensor | None = None,
        shift: float | Sequence[float] | Tensor | None = None,
        memory: str | Tiling = "auto",
    ) -> LatentSpace:
        """An embedded name, a folder (of a pipeline or of the autoencoder alone), a single file, or a hub id.

        `scale` and `shift` win over what the weights' config says. Of a model of pixels the space is pixels themselves.
        FileNotFoundError where there is none, CheckpointError where it cannot be used.
        """
        from ldm.checkpoints import load_vae, locate, of_pixels

        if subfolder is None and of_pixels(locate(os.fspath(source))):
            return cls.identity()
        return cls(load_vae(os.fspath(source), subfolder, scale), scale, shift, memory=memory)

    @classmethod
    def identity(cls) -> LatentSpace:
        """Pixel space: z_0 is x itself."""
        return cls(_Pixels(), scale=1.0, shift=0.0, factor=1)

    # ---- images <-> z_0 ----

    @torch.no_grad()
    def encode(
        self,
        images: Source | Sequence[Source],
        generator: Generator | Sequence[Generator] | None = None,
        value_range: Range | None = None,
    ) -> Tensor:
        """source or list of B of one size -> z_0 (B,C,H/f,W/f): the posterior mean, or a sample with `generator`.

        Sides are padded to multiples of f. `value_range` says what float arrays and tensors mean, as in `ldm.images`.
        Raises ValueError for what cannot be read and for sizes that differ, NonFiniteError that names the image.
        """
        x, _ = pad(to_pixels(images, value_range=value_range), self.factor)
        with _naming(images):
            return self.from_pixels(x, generator)

    @torch.no_grad()
    def decode(self, z: Tensor, size: tuple[int, int] | None = None) -> list[Image.Image]:
        """z_0 (B,C,h,w) -> B images of (h f, w f), cropped to `size` = (H, W), the size before padding.

        Raises NonFiniteError with the index of an image that cannot be decoded: none comes out black.
        """
        x = self.to_pixels(z)
        return to_images(x if size is None else crop(x, size))

    @torch.no_grad()
    def preview(self, z: Tensor) -> list[Image.Image]:
        """z_0 (B,C,h,w) -> B sketches of (h f, w f): a colour for each latent, by a linear map, at next to no cost.

        Shows what is where and in which tone, no more. The map is fitted once, to what this space's decoder makes of a
        few patchworks.
        """
        self._expect_latents(z)
        colours = self._colours.to(z.device)
        x = torch.einsum("bchw,cd->bdhw", z.float(), colours[:-1]) + colours[-1].view(3, 1, 1)
        return to_images(F.interpolate(x, scale_factor=self.factor))

    @torch.no_grad()
    def reconstruct(self, images: Source | Sequence[Source]) -> list[Image.Image]:
        """source or list -> what the autoencoder makes of each, at its own size. Raises as `encode` and `decode` do."""
        pictures = []
        for source in _sources(images):
            x, size = pad(to_pixels(source), self.factor)
            with _naming(source):
                pictures += self.decode(self.from_pixels(x), size)
        return pictures

    def roundtrip(self, image: Source, value_range: Range | None = None) -> RoundTrip:
        """One picture there and back: figures, and what is wrong if something is (see `ldm.roundtrip`).

        ValueError for what cannot be read, and for more than one picture.

        >>> from PIL import Image
        >>> LatentSpace.identity().roundtrip(Image.new("RGB", (32, 32), "teal")).psnr
        inf
        """
        x = to_pixels(image, value_range=value_range)
        if len(x) != 1:
            raise ValueError(f"{len(x)} pictures: a round trip is made with one at a time")
        scale, shift = (_column(value, home(self.autoencoder, x)) for value in (self.scale, self.shift))
        with _naming(image):
            return roundtrip(x, *self._pair(plain), scale, shift, precise=self._pair(precise))

    # ---- x <-> z_0, differentiable ----

    def from_pixels(self, x: Tensor, generator: Generator | Sequence[Generator] | None = None) -> Tensor:
        """pixels (B,3,H,W) in [-1,1] -> z_0 (B,C,H/f,W/f): the posterior mean, or a sample with `generator`.

        A list of B generators draws image j from generator j alone, so that it does not depend on its neighbours; one
        generator serves them in order. Differentiable.
        """
        mean, logvar = self.posterior(x)
        return mean if generator is None else mean + torch.exp(logvar / 2) * _gaussian(generator, mean)

    def to_pixels(self, z: Tensor) -> Tensor:
        """z_0 (B,C,h,w) -> pixels (B,3,h f,w f), about [-1,1] and not clamped. Differentiable.

        ValueError for another number of channels, NonFiniteError as `decode`.
        """
        self._expect_latents(z)
        return self._run(decoding, self.unscaled(z))

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """pixels (B,3,H,W) in [-1,1] -> mean and log-variance of z_0, of the scaled latents, each (B,C,H/f,W/f).

        A deterministic encoder has a variance of e^-30 or less. ValueError for sides that are no multiples of f.
        """
        if x.ndim != 4 or x.shape[-2] % self.factor or x.shape[-1] % self.factor:
            raise ValueError(f"pixels of shape {tuple(x.shape)}: expected (B,3,H,W), sides multiples of {self.factor}")
        mean, logvar = self._run(encoding, x).unbind(1)
        return self._scaled(mean), logvar + 2 * _column(self.scale, logvar).abs().log()

    def unscaled(self, z: Tensor) -> Tensor:
        """z_0 (B,C,h,w) -> raw latents, as the autoencoder itself has them: z_0 / scale + shift."""
        return z / _column(self.scale, z) + _column(self.shift, z)

    def _expect_latents(self, z: Tensor) -> None:
        if z.ndim != 4 or z.shape[1] != self.channels:
            raise ValueError(f"latents of shape {tuple(z.shape)}: expected (B,{self.channels},h,w)")

    # ---- facts ----

    @cached_property
    def factor(self) -> int:
        """f: pixels to a latent, along each side."""
        if told := _named(self.autoencoder, "factor"):
            return told
        widths = _named(self.autoencoder, "block_out_channels")
        return 2 ** (len(widths) - 1) if widths else PROBE // self._probed[3]

    @property
    def side(self) -> int:
        """The side of the pictures that the autoencoder learnt from, as its config says; 64 where it does not."""
        found = getattr(self.autoencoder, "config", {}).get("sample_size") or 64
        return found if isinstance(found, int) else found[0]

    @cached_property
    def channels(self) -> int:
        """C, the channels of z_0."""
        return _named(self.autoencoder, "latent_channels") or self._probed[1]

    @cached_property
    def _probed(self) -> torch.Size:
        with torch.no_grad():
            return plain(self.autoencoder, encoding, torch.zeros(1, 3, PROBE, PROBE))[:, 0].shape

    @cached_property
    @torch.no_grad()
    def _colours(self) -> Tensor:
        """(C+1,3): what each channel of z_0, and 1, add to red, green and blue; least squares over patchworks."""
        z = self.from_pixels(_patchworks(self.factor))
        x = F.avg_pool2d(self.to_pixels(z), self.factor)
        known = torch.cat([z, torch.ones_like(z[:, :1])], dim=1)
        places = (values.movedim(1, -1).flatten(0, -2).double().cpu() for values in (known, x))
        return torch.linalg.lstsq(*places, driver="gelsd").solution.float()

    @torch.no_grad()
    def statistics(self, images: Iterable[Source]) -> Statistics:
        """Pictures of any sizes -> the moments of their z_0; warns where the scale does not fit them.

        The variance is that of posterior samples, without drawing any: that of the mean plus the mean of the variance.
        ValueError for no picture.
        """
        tally = Tally(self)
        for source in images:
            with _naming(source):
                tally.add(*self.posterior(pad(to_pixels(source), self.factor)[0]))
        found = tally.statistics()
        if not EXPECTED_STD[0] <= found.std <= EXPECTED_STD[1]:
            warnings.warn(
                f"latents of {found.count} pictures have standard deviation {found.std:.3g}, expected about 1: "
                f"the scale that gives 1 is {found.fitting_scale:.5g}",
                stacklevel=3,
            )
        return found

    # ---- moving and keeping ----

    @property
    def memory(self) -> str | Tiling:
        """How much is run at once."""
        return self._memory

    @memory.setter
    def memory(self, memory: str | Tiling) -> None:
        ladder(memory, 1 if isinstance(memory, str) else self.factor)  # refuses what it does not know; names always fit
        self._memory, self._step = memory, 0

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> LatentSpace:
        """Moves the autoencoder, where it is one that can be moved; returns this space."""
        if isinstance(self.autoencoder, nn.Module):
            # not diffusers' own `to`, which warns of modules to be kept in float32 where there are none
            nn.Module.to(self.autoencoder, device=device, dtype=dtype)
        return self

    def entries(self) -> dict[str, Any]:
        """What a diffusers config says of this space's scale and shift."""
        return _entries(self.scale, self.shift)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Writes the autoencoder in diffusers' layout; its config names this space's scale and shift.

        ValueError for an autoencoder that cannot be written.
        """
        if not hasattr(self.autoencoder, "save_pretrained"):
            raise ValueError(f"{type(self.autoencoder).__name__} has no save_pretrained, expected a diffusers model")
        self.autoencoder.save_pretrained(folder)
        path = Path(folder) / "config.json"
        config = json.loads(path.read_text(encoding="utf-8")) | self.entries()
        write_json(path, dict(sorted(config.items())))

    # ---- inside ----

    def _scaled(self, raw: Tensor) -> Tensor:
        return (raw - _column(self.shift, raw)) * _column(self.scale, raw)

    def _pair(self, run: Way) -> Pair:
        """encode and decode as `ldm.roundtrip` wants them, by one way to run the autoencoder."""

        def encode(x: Tensor) -> Tensor:
            return self._scaled(self._within_memory(run, encoding, pad(x, self.factor)[0])[:, 0])

        return encode, lambda z: self._within_memory(run, decoding, self.unscaled(z))

    def _run(self, part: Part, x: Tensor) -> Tensor:
        """x -> the part's result, finite and within memory."""
        return self._within_memory(self._finite, part, x)

    def _finite(self, autoencoder: Any, part: Part, x: Tensor) -> Tensor:
        """x -> the part's result, finite: images that overflow are redone in float32, else NonFiniteError."""
        result = plain(autoencoder, part, x)
        again = lost(result)
        if not again:
            return result
        if torch.is_grad_enabled():  # then all are redone: in the gradient, 0 times the replaced infinity is NaN
            result = precise(autoencoder, part, x)
        else:
            with numbered(again):
                redone = precise(autoencoder, part, x[again])
            result = result.index_copy(0, torch.tensor(again, device=result.device), redone)
        self._tell(part, home(autoencoder, x).dtype)
        return result

    def _tell(self, part: Part, dtype: torch.dtype) -> None:
        """Warns of an overflow once, by itself: the interpreter's own memory of warnings is lost now and then."""
        if (part, dtype) not in self._told:
            self._told.add((part, dtype))
            name = f"{type(self.autoencoder).__name__}: {part.__name__}"
            message = f"{name} overflowed in {str(dtype).removeprefix('torch.')}, redone in float32"
            warnings.warn(message, RuntimeWarning, stacklevel=3)

    def _within_memory(self, run: Way, part: Part, x: Tensor) -> Tensor:
        """x -> the part's result, in the pieces that `memory` says, and in smaller ones once memory has run out."""
        if torch.is_grad_enabled():  # the gradient holds on to every piece, and tiles have none
            return run(self.autoencoder, part, x)
        tilings, units = ladder(self.memory, self.factor), (self.factor, 1) if part is encoding else (1, self.factor)
        height, width = (side * units[1] for side in x.shape[-2:])
        name = f"{part.__name__} {width}x{height}"
        while True:
            try:
                return in_pieces(lambda a, x: run(a, part, x), self.autoencoder, x, tilings[self._step], *units, name)
            except Exception as error:
                if not out_of_memory(error) or self._step + 1 == len(tilings):
                    raise
            self._step_down(name)  # not in `except`, where the error still holds what filled the memory

    def _step_down(self, name: str) -> None:
        """To smaller pieces, from now on; says so the first time."""
        if self._step == 0:
            log.warning("out of memory: %s goes in smaller pieces, and so does all that follows", name)
        self._step += 1


class Tally:
    """Sums over the posteriors of pictures, one added after the other -> the `Statistics` of all of them."""

    def __init__(self, space: LatentSpace):
        self.space, self.count, self.places = space, 0, 0
        self.total, self.squares = torch.zeros(2, space.channels).double()

    def add(self, mean: Tensor, logvar: Tensor) -> None:
        """Mean and log-variance of z_0 (B,C,h,w), as `LatentSpace.posterior` gives them."""
        mean, variance = mean.detach().cpu().double(), logvar.detach().cpu().double().exp()
        self.count, self.places = self.count + len(mean), self.places + mean[:, 0].numel()
        self.total += mean.sum(dim=(0, 2, 3))
        self.squares += (mean.square() + variance).sum(dim=(0, 2, 3))

    def statistics(self) -> Statistics:
        """Of what was added; ValueError where that is nothing."""
        if not self.count:
            raise ValueError("no picture given, expected at least one")
        return _statistics(self.count, self.total / self.places, self.squares / self.places, self.space)


class _Pixels:
    """The autoencoder that does nothing."""

    def encode(self, x: Tensor) -> Tensor:
        return x

    def decode(self, raw: Tensor) -> Tensor:
        return raw


# ---- the affine map ----


def _named(autoencoder: Any, key: str) -> Any:
    config = getattr(autoencoder, "config", None)
    return config.get(key) if isinstance(config, Mapping) else getattr(config, key, None)


def _named_scale(autoencoder: Any) -> Any:
    scale, deviation = _named(autoencoder, "scaling_factor"), _named(autoencoder, "latents_std")
    if deviation is not None:
        return (1.0 if scale is None else scale) / torch.as_tensor(deviation)
    return SCALE if scale is None else scale


def _named_shift(autoencoder: Any) -> Any:
    mean = _named(autoencoder, "latents_mean")
    return (_named(autoencoder, "shift_factor") or 0.0) if mean is None else mean


def _checked(name: str, value: Any) -> Affine:
    numbers = torch.as_tensor(value, dtype=torch.float32)
    if numbers.ndim > 1 or not numbers.isfinite().all():
        raise ValueError(f"{name} {value}: expected a finite number, or one for each channel")
    return float(value) if numbers.ndim == 0 else numbers


def _column(value: Affine, z: Tensor) -> Tensor:
    """A number or (C,) numbers -> (1 or C,1,1) in float32 beside z (B,C,h,w)."""
    return torch.as_tensor(value, dtype=torch.float32, device=z.device).reshape(-1, 1, 1)


def _entries(scale: Affine, shift: Affine) -> dict[str, Any]:
    """scale and shift -> the entries of a diffusers config that name them."""
    if isinstance(scale, float) and isinstance(shift, float):
        return {"scaling_factor": scale, "shift_factor": shift or None, "latents_mean": None, "latents_std": None}
    mean, deviation = torch.broadcast_tensors(torch.as_tensor(shift), 1 / torch.as_tensor(scale))
    entries = {"latents_mean": mean.tolist(), "latents_std": deviation.tolist()}
    return {"scaling_factor": 1.0, "shift_factor": None, **entries}


def _statistics(count: int, mean: Tensor, square: Tensor, space: LatentSpace) -> Statistics:
    """Means of z_0 and of its square, (C,) each -> Statistics."""
    scale = _column(space.scale, mean).flatten().double()
    variance = square - mean.square()
    unscaled = _deviation(mean / scale, variance / scale.square())
    return Statistics(
        count=count,
        mean=float(mean.mean()),
        std=_deviation(mean, variance),
        channel_mean=tuple(mean.tolist()),
        channel_std=tuple(variance.clamp_min(0).sqrt().tolist()),
        fitting_scale=1 / unscaled if unscaled else math.inf,
    )


def _deviation(mean: Tensor, variance: Tensor) -> float:
    """Of all channels together, from each one's mean and variance."""
    return math.sqrt(max(0.0, float(variance.mean() + mean.var(correction=0))))


def _patchworks(factor: int) -> Tensor:
    """x (8,3,16 f,16 f): squares of random colours on white and on black, which fit a decoder of pictures best."""
    generator = Generator().manual_seed(0)
    colours = 2 * torch.rand(8, 3, 4, 4, generator=generator) - 1
    painted = torch.rand(8, 1, 4, 4, generator=generator) < 0.3
    paper = torch.tensor([1.0, -1.0]).repeat(4).view(8, 1, 1, 1)
    return F.interpolate(torch.where(painted, colours, paper), (16 * factor, 16 * factor))


# ---- who is meant ----


def _sources(images: Any) -> list[Any]:
    return list(images) if isinstance(images, (list, tuple)) else [images]


@contextmanager
def _naming(images: Any) -> Iterator[None]:
    """Lets a NonFiniteError name the file, where the image came from one."""
    try:
        yield
    except NonFiniteError as error:
        sources = _sources(images)
        source = sources[error.index] if error.index < len(sources) else None
        name = str(source) if isinstance(source, (str, os.PathLike)) else f"image {error.index}"
        raise NonFiniteError(name, error.side, error.index) from None


def _gaussian(generator: Generator | Sequence[Generator], like: Tensor) -> Tensor:
    """eps ~ N(0, I) of `like`'s shape (B,C,h,w), row j from generator j."""
    generators = [generator] * len(like) if isinstance(generator, Generator) else list(generator)
    if len(generators) != len(like):
        raise ValueError(f"{len(generators)} generators for {len(like)} images, expected one or one for each")
    draws = [torch.randn(like.shape[1:], generator=g, device=g.device).to(like) for g in generators]
    return torch.stack(draws) if draws else like
