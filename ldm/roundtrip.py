"""What an autoencoder loses, in figures, and why: x --encode--> z_0 --decode--> x', compared and diagnosed.

Works on any two callables. A fault is named only if undoing it brings the picture back: the error at least halves, most
of the picture's structure is explained, and no change of brightness and contrast would still mend much. So neither a
plain picture, which has no structure, nor an autoencoder that is weak or pale is taken for a faulty one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ldm.images import crop, error_map, side_by_side, to_images

Pair: TypeAlias = "tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]"  # encode: x -> z_0; decode: z_0 -> x

HEALTHY_DB = 40  # no fault that matters leaves so little error
POOR_DB = 18  # well below what published f8 autoencoders reach on photographs (23 to 27 dB)
HALVED = 0.5  # undoing a fault takes at least 3 dB of the error away,
UNEXPLAINED = 0.4  # leaves at most this share of the picture's variance,
PALE = 0.5  # and is not itself mended by 3 dB with brightness and contrast
TIE = 1.25  # errors within 1 dB do not tell which side is at fault,
TIE_FLOOR = 4e-6  # nor do errors as small as this, 60 dB
WINDOW = 11  # pixels of a side of `ssim`'s
STRIP = 2**18  # values that `ssim` looks at together, which takes some 100 MB
DIAGNOSED_SIDE = 128  # pixels of the longer side; trying a dozen suspicions on a large photograph would take minutes


@dataclass(frozen=True, eq=False)
class RoundTrip:
    """One picture there and back. Errors are of 255; `latent_*` are those of z_0, the scaled posterior mean."""

    original: Image.Image
    image: Image.Image  # the reconstruction
    psnr: float  # dB; inf for equal pictures
    ssim: float  # -1..1, 1 for equal pictures
    max_error: float
    channel_shift: tuple[float, ...]  # mean of reconstruction - original: R, G, B
    latent_mean: float
    latent_std: float
    latent_min: float
    latent_max: float
    latent_channel_std: tuple[float, ...]
    fitting_scale: float  # the scale at which these latents would have unit standard deviation; inf for constant ones
    diagnosis: str  # begins with "ok" unless a fault was found

    def picture(self) -> Image.Image:
        """original | reconstruction | error map, labelled."""
        return compared({"reconstruction": self})

    def to_dict(self) -> dict[str, Any]:
        """The figures and the diagnosis, ready for JSON: what is infinite is None."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: _json(value) for name, value in values.items() if not isinstance(value, Image.Image)}

    def __str__(self) -> str:
        shift = "  ".join(f"{name} {value:+.1f}" for name, value in zip("RGB", self.channel_shift))
        by_channel = " ".join(f"{value:.2f}" for value in self.latent_channel_std)
        low, high = f"{self.latent_min:.2f}", f"{self.latent_max:.2f}"
        rows = {
            "psnr": f"{self.psnr:.2f} dB",
            "ssim": f"{self.ssim:.4f}",
            "max error": f"{self.max_error:.0f} of 255",
            "channel shift": f"{shift} of 255",
            "latents": f"mean {self.latent_mean:+.3f}, std {self.latent_std:.3f} ({by_channel}), from {low} to {high}",
            "fitting scale": f"{self.fitting_scale:.5g}",
            "diagnosis": self.diagnosis,
        }
        return "\n".join(f"{name:<14} {value}" for name, value in rows.items())


def compared(checks: Mapping[str, RoundTrip]) -> Image.Image:
    """One picture's round trips, by name, at least one -> original | reconstruction | error map | ..., labelled."""
    pictures, labels = [next(iter(checks.values())).original], ["original"]
    for name, check in checks.items():
        pictures += [check.image, error_map(check.original, check.image)]
        labels += [f"{name}, {check.psnr:.1f} dB", f"error, at most {check.max_error:.0f} of 255"]
    return side_by_side(pictures, labels)


def _json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_json(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@torch.no_grad()
def roundtrip(
    x: Tensor,
    encode: Callable[[Tensor], Tensor],
    decode: Callable[[Tensor], Tensor],
    scale: float | Tensor = 1.0,
    shift: float | Tensor = 0.0,
    precise: Pair | None = None,
) -> RoundTrip:
    """x (1,3,H,W) in [-1,1] -> RoundTrip; the figures are those of the reconstruction clamped to [-1,1].

    `encode` takes pixels of any size, as it pads them; what `decode` gives is cropped back. z_0 is (raw - shift) *
    scale, both of a shape that fits z_0. `precise` is the same pair in float32, which takes over where this one
    overflows; without it values that are not finite are a ValueError that names the side.
    """
    pair, faults = (encode, decode), []
    z, y = _through(x, pair)
    overflow = _overflow(z, y)
    if overflow:
        if precise is None:
            raise ValueError(f"the {overflow} gives NaN or infinite values")
        faults.append(f"overflow in the {overflow}: NaN or infinite values, which float32 does not give")
        pair, precise = precise, None
        z, y = _through(x, pair)
    quality = psnr(x, y.clamp(-1, 1))
    if quality < HEALTHY_DB:
        faults += diagnose(x, *pair, scale, shift, precise)
    return _figures(x, y.clamp(-1, 1), z, z / scale, "; ".join(faults) or _verdict(quality))


def _through(x: Tensor, pair: Pair) -> tuple[Tensor, Tensor]:
    """x -> z_0 and x', of x's size and on its device, in float32."""
    encode, decode = pair
    z = encode(x)
    return z, crop(decode(z), (x.shape[-2], x.shape[-1])).to(x)


def _overflow(z: Tensor, y: Tensor) -> str:
    if not z.isfinite().all():
        return "encoder"
    return "" if y.isfinite().all() else "decoder"


def _verdict(quality: float) -> str:
    if quality >= POOR_DB:
        return "ok: no known fault"
    return f"ok: no known fault, but {quality:.1f} dB is poor: the autoencoder is weak on such a picture, or untrained"


def _figures(x: Tensor, y: Tensor, z: Tensor, unscaled: Tensor, diagnosis: str) -> RoundTrip:
    error, spread = 127.5 * (y - x), float(unscaled.std(correction=0))
    return RoundTrip(
        original=to_images(x)[0],
        image=to_images(y)[0],
        psnr=psnr(x, y),
        ssim=ssim(x, y),
        max_error=float(error.abs().max()),
        channel_shift=tuple(error.mean(dim=(0, 2, 3)).tolist()),
        latent_mean=float(z.mean()),
        latent_std=float(z.std(correction=0)),
        latent_min=float(z.min()),
        latent_max=float(z.max()),
        latent_channel_std=tuple(z.std(dim=(0, 2, 3), correction=0).tolist()),
        fitting_scale=1 / spread if spread else math.inf,
        diagnosis=diagnosis,
    )


# ---- figures ----


def psnr(x: Tensor, y: Tensor) -> float:
    """Two x of one shape in [-1,1] -> peak signal-to-noise ratio in dB; the same as for 0..255. inf if equal."""
    return float(10 * torch.log10(4 / (x.double() - y.double()).square().mean()))


def ssim(x: Tensor, y: Tensor) -> float:
    """Two x (B,C,H,W) in [-1,1] -> structural similarity (Wang et al. 2004, eq. 13), a mean over channels and places.

    Gaussian window of 11 x 11 pixels and sigma 1.5, inside the picture only; cut to the picture where that is smaller.
    """
    height, width = (max(1, side - WINDOW + 1) for side in x.shape[-2:])  # of the places that windows have
    rows, overlap = -(-STRIP // x[..., 0, :].numel()), x.shape[-2] - height
    strips = (slice(top, top + rows + overlap) for top in range(0, height, rows))
    total = sum(_similarity(x[..., strip, :], y[..., strip, :]).sum() for strip in strips)
    return float(total / (x[..., 0, 0].numel() * height * width))


def _similarity(x: Tensor, y: Tensor) -> Tensor:
    """Two x (B,C,H,W) in [-1,1] -> their structural similarity in each window (B C,1,H-10,W-10)."""
    c1, c2 = 0.01**2, 0.03**2  # (K L)^2, L = 1 the range
    x, y = (x.double() + 1) / 2, (y.double() + 1) / 2  # light from 0: the luminance term knows where black is
    mean_x, mean_y = _blurred(x), _blurred(y)
    var_x, var_y = _blurred(x * x) - mean_x**2, _blurred(y * y) - mean_y**2
    covariance = _blurred(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance * (2 * covariance + c2) / (var_x + var_y + c2)


def _blurred(x: Tensor, sigma: float = 1.5) -> Tensor:
    """x (B,C,H,W) -> its Gaussian means over whole windows (B C,1,H-10,W-10), one axis after the other."""
    planes = x.flatten(0, 1)[:, None]
    for dim, shape in ((-2, (1, 1, -1, 1)), (-1, (1, 1, 1, -1))):
        width = min(WINDOW, x.shape[dim])
        place = torch.arange(width, dtype=x.dtype, device=x.device) - (width - 1) / 2
        window = torch.exp(-(place**2) / (2 * sigma**2))
        planes = F.conv2d(planes, (window / window.sum()).view(shape))
    return planes


def _mse(x: Tensor, y: Tensor) -> float:
    """Mean squared error; inf where a value is not finite."""
    error = float((x.double() - y.double()).square().mean())
    return error if math.isfinite(error) else math.inf


def _mended(x: Tensor, y: Tensor) -> float:
    """Mean squared error that the best brightness and contrast of y would leave: least squares of a y + b against x."""
    x, y = x.double().flatten(), y.double().flatten()
    x, y = x - x.mean(), y - y.mean()
    return float(x.square().mean() - (x * y).mean().square() / y.square().mean().clamp_min(1e-12))


# ---- diagnosis ----


@torch.no_grad()
def diagnose(
    x: Tensor,
    encode: Callable[[Tensor], Tensor],
    decode: Callable[[Tensor], Tensor],
    scale: float | Tensor = 1.0,
    shift: float | Tensor = 0.0,
    precise: Pair | None = None,
) -> list[str]:
    """x (1,3,H,W) and a pair as for `roundtrip` -> the fault that explains its loss, in words; [] for none.

    Sides that cannot be told apart are named together. Looks at a reduced picture, so costs little.
    """
    x = _reduced(x)
    z, y = _through(x, (encode, decode))
    before = _mse(x, y.clamp(-1, 1))  # as seen; what is undone is not clamped, which mends black on white by itself

    def decoded(z: Tensor) -> Tensor:
        return crop(decode(z), (x.shape[-2], x.shape[-1])).to(x)

    undone = list(_suspects(x, z, y, encode, decoded, scale, shift))
    if precise is not None:
        undone.append(("precision too low: float32 does better", _through(x, precise)[1]))
    confirmed = [(_mse(x, picture), what) for what, picture in undone if _brings_back(x, picture, before)]
    if not confirmed:
        return []
    after = min(confirmed)[0]
    named = [what for error, what in confirmed if error <= TIE * after + TIE_FLOOR]
    return [f"{' or '.join(named)}: undone, {_db(after)} in place of {_db(before)}"]


def _brings_back(x: Tensor, undone: Tensor, before: float) -> bool:
    """Whether the undone reconstruction is so much better than the error `before` that it cannot be chance."""
    error, structure = _mse(x, undone), float(x.var(dim=(-2, -1), correction=0).mean())
    if error >= min(HALVED * before, UNEXPLAINED * structure):
        return False
    return error <= TIE_FLOOR or _mended(x, undone) > PALE * error


def _suspects(
    x: Tensor,
    z: Tensor,
    y: Tensor,
    encode: Callable[[Tensor], Tensor],
    decode: Callable[[Tensor], Tensor],
    scale: float | Tensor,
    shift: float | Tensor,
) -> Iterator[tuple[str, Tensor]]:
    """What may be wrong, and the reconstruction with that undone, one after another."""
    scaled, unscaled = (z - shift) * scale, z / scale + shift
    yield _blamed(scaled, z, "scale missing in encode", "scale applied twice in decode"), decode(scaled)
    yield _blamed(unscaled, z, "scale applied twice in encode", "scale missing in decode"), decode(unscaled)
    yield "[0,1] fed to the encoder in place of [-1,1]", decode(encode(2 * x - 1))
    yield "[0,1] given by the decoder in place of [-1,1]", 2 * y - 1
    yield "[-1,1] fed to the encoder in place of [0,1]", decode(encode((x + 1) / 2))
    yield "[-1,1] given by the decoder in place of [0,1]", (y + 1) / 2
    yield "channels swapped before the encoder", decode(encode(x.flip(1)))
    yield "channels swapped after the decoder", y.flip(1)


def _blamed(undone: Tensor, z: Tensor, encoder: str, decoder: str) -> str:
    """Which of two faults that are undone alike: the encoder's if its latents have deviation 1 only when undone."""
    distance = [abs(float(latents.std(correction=0).clamp_min(1e-9).log())) for latents in (undone, z)]
    if abs(distance[0] - distance[1]) < math.log(2):
        return f"{encoder} or {decoder}"
    return encoder if distance[0] < distance[1] else decoder


def _reduced(x: Tensor) -> Tensor:
    """x (1,3,H,W) -> the same picture with no side above DIAGNOSED_SIDE, by area means."""
    ratio = DIAGNOSED_SIDE / max(x.shape[-2:])
    if ratio >= 1:
        return x
    return F.interpolate(x, size=[max(1, round(side * ratio)) for side in x.shape[-2:]], mode="area")


def _db(error: float) -> str:
    return f"{10 * math.log10(4 / max(error, 1e-12)):.1f} dB"
