"""Training an AutoencoderKL: x (B,3,H,W) in [-1,1] -> posterior over z (B,4,H/f,W/f) -> x.

Kingma and Welling 2014 with the losses of Rombach et al. 2022 (section 3.1, appendix G): reconstruction, a small KL
weight, and where asked for LPIPS and a patch discriminator. The finished autoencoder's latents have unit variance at
the scale that its config names.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from PIL import Image
from torch import Generator, Tensor, nn
from torch.func import functional_call
from tqdm import tqdm

from ldm import checkpoints, roundtrip
from ldm.draws import gaussian
from ldm.files import write_json
from ldm.images import grid, to_images, to_pixels
from ldm.latents import SCALE, LatentSpace
from ldm.training import discriminator, losses, processes
from ldm.training.growing import grown
from ldm.training.loop import fit
from ldm.training.losses import precise
from ldm.training.perceptual import LPIPS, SMALLEST
from ldm.training.plan import Plan
from ldm.training.records import Preview

PRESETS: dict[str, dict[str, Any]] = {  # widths of the levels; the factor is 2 for each level after the first
    "tiny": {"widths": (16, 16, 16)},  # for tests
    "small": {"widths": (24, 48, 96)},  # f4, 1.4 M parameters: about 45 images/s at 64 x 64 in training on two cores
    "fine": {"widths": (24, 48, 96), "channels": 12},  # as small, for what 4 channels would blur: prints, small letters
    "base": {"widths": (24, 48, 96, 160)},  # f8, 4.3 M parameters, 8.7 MB in float16: for 128 x 128
}
SCALES = ("fold", "measured", "keep")
MEASURED, BATCH = 1024, 64  # pictures that the scale is measured on, and those that are encoded together


@dataclass(frozen=True)
class Recipe:
    """What is minimised: a weight for each term of `ldm.training.losses`, 0 for none, and who learns.

    A large `kl` draws the posterior towards N(0, I) and so leaves more noise in the latents; 1e-6 is nearly none.
    `adversarial` is a share: times the adaptive weight (Esser et al. 2021), 1 pulls as hard as the reconstruction.
    ValueError for a weight below 0 and for an unknown discriminator.
    """

    l1: float = 1.0
    mse: float = 1.0
    kl: float = 5e-4
    perceptual: float = 0.0
    equivariance: float = 0.0
    adversarial: float = 0.0
    adaptive: bool = True
    start: int = 0  # the first step with a discriminator
    discriminator: str = "small"
    discriminator_rate: float = 1.0  # its learning rate, of the autoencoder's
    decoder_only: bool = False  # the encoder stays as it is, bit by bit

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not isinstance(value, str) and not value >= 0:
                raise ValueError(f"{name} {value}: expected 0 or more")
        if self.discriminator not in discriminator.PRESETS:
            known = ", ".join(discriminator.PRESETS)
            raise ValueError(f"unknown discriminator {self.discriminator!r}; expected one of {known}")


def autoencoder(widths: tuple[int, ...], layers: int = 1, channels: int = 4, attention: bool = False) -> AutoencoderKL:
    """A new AutoencoderKL of factor 2^(levels - 1)."""
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * len(widths),
        up_block_types=["UpDecoderBlock2D"] * len(widths),
        block_out_channels=list(widths),
        layers_per_block=layers,
        latent_channels=channels,
        norm_num_groups=math.gcd(8, *widths),
        mid_block_add_attention=attention,
        sample_size=64,
    )


class VAEObjective(nn.Module):
    """x (B,3,H,W) and a generator for each -> the loss and its parts, each a mean over the samples.

    The discriminator learns in the same backward: its loss is added, but sees reconstructions that carry no gradient,
    as the autoencoder's sees a discriminator that carries none.
    """

    averaged = ("vae",)

    def __init__(self, vae: Any, recipe: Recipe = Recipe(), perceptual: LPIPS | None = None):  # noqa: B008
        super().__init__()
        if recipe.perceptual and perceptual is None:
            raise ValueError(f"a perceptual weight of {recipe.perceptual} needs LPIPS; see ldm.training.perceptual")
        self.vae, self.recipe, self.perceptual, self.step = vae, recipe, perceptual, 0
        widths = discriminator.PRESETS[recipe.discriminator]
        self.discriminator = discriminator.PatchDiscriminator(widths) if recipe.adversarial else None
        if recipe.decoder_only:
            for part in filter(None, (vae.encoder, vae.quant_conv)):
                part.requires_grad_(False)

    def groups(self) -> list[dict[str, Any]]:
        """The autoencoder's parameters; the discriminator's, with the momenta of Esser et al. 2021 and no decay.

        So that it stays as it is before its start, when its gradients are 0, and short momenta soon forget these.
        """
        groups: list[dict[str, Any]] = [{"params": [p for p in self.vae.parameters() if p.requires_grad]}]
        if self.discriminator:
            own = {"lr_scale": self.recipe.discriminator_rate, "betas": (0.5, 0.9), "weight_decay": 0.0}
            groups.append({"params": list(self.discriminator.parameters()), **own})
        return groups

    def forward(self, x: Tensor, generators: Sequence[Generator]) -> dict[str, Tensor]:
        mean, logvar = self.posterior(x)
        deviation = torch.exp(logvar / 2)
        z = mean + deviation * gaussian(generators, mean.shape[1:]).to(mean)
        y = self.decode(z)
        terms = {"l1": losses.l1(y, x), "mse": losses.mse(y, x)}
        if self.perceptual and self.recipe.perceptual:
            terms["perceptual"] = self.perceptual(y, x)
        reconstruction = self._weighted(terms)
        regular = {"kl": losses.kl(mean, logvar)}
        if self.recipe.equivariance:
            regular["equivariance"] = losses.equivariance(self.decode, z, x, generators)
        psnr = -10 * torch.log10(terms["mse"] / 4 + 1e-12)
        logged = {**terms, **regular, "psnr": psnr, "noise": losses.per_sample(deviation)}
        adversarial, parts = self._adversarial(x, y, reconstruction)
        loss = reconstruction + self._weighted(regular) + adversarial
        return {"loss": loss, **{name: part.detach().mean() for name, part in (logged | parts).items()}}

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (B,3,H,W) -> mean and log-variance (B,C,h,w) of the unscaled latents, in float32."""
        mean, logvar = precise(self.vae.encode(x).latent_dist.parameters).chunk(2, dim=1)
        return mean, logvar.clamp(-30, 20)

    def decode(self, z: Tensor) -> Tensor:
        """Unscaled latents (B,C,h,w) -> x (B,3,H,W), in float32."""
        return precise(self.vae.decode(z).sample)

    def _weighted(self, terms: dict[str, Tensor]) -> Tensor:
        return torch.stack([getattr(self.recipe, name) * term.mean() for name, term in terms.items()]).sum()

    def _adversarial(self, x: Tensor, y: Tensor, reconstruction: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """What is added to the loss, and its parts; before the start that is 0, and nothing is computed."""
        critic, nothing = self.discriminator, y.new_zeros(())
        if critic is None:
            return nothing, {}
        if self.step < self.recipe.start:
            # in the graph all the same: processes that share gradients wait for those of every parameter
            return sum((0 * parameter.sum() for parameter in critic.parameters()), nothing), {}
        still = {name: parameter.detach() for name, parameter in critic.named_parameters()}
        fooling = losses.unconvincing(precise(functional_call(critic, still, (y,)))).mean()
        weight = torch.ones_like(fooling)
        if self.recipe.adaptive and torch.is_grad_enabled():
            weight = losses.adaptive_weight(reconstruction, fooling, self.vae.decoder.conv_out.weight, len(x))
        own = losses.hinge(precise(critic(x)), precise(critic(y.detach()))).mean()
        parts = {"adversarial": fooling, "adaptive_weight": weight, "discriminator": own}
        return self.recipe.adversarial * weight * fooling + own, parts


@torch.no_grad()
def fold(vae: Any, factor: float) -> None:
    """Multiplies the latents by `factor` inside the weights; what decode(encode(x)) gives does not change.

    The mean rows of quant_conv times k, the bias of its log-variance rows plus 2 ln k, post_quant_conv's weight over k.
    """
    channels = vae.config["latent_channels"]
    vae.quant_conv.weight[:channels] *= factor
    vae.quant_conv.bias[:channels] *= factor
    vae.quant_conv.bias[channels:] += 2 * math.log(factor)
    vae.post_quant_conv.weight /= factor


@torch.no_grad()
def latent_deviation(vae: Any, pixels: Iterable[Tensor]) -> float:
    """Standard deviation of unscaled posterior samples over batches of x.

    Without drawing any: their variance is that of the mean plus the mean of the posterior's variance.
    """
    posteriors = [vae.encode(x.to(vae.device)).latent_dist for x in pixels]
    mean, variance = (torch.cat([getattr(p, part).flatten() for p in posteriors]) for part in ("mean", "var"))
    return float((mean.double().var() + variance.double().mean()).sqrt())


def rescale(vae: Any, scale: str, pixels: Iterable[Tensor]) -> None:
    """Gives the latents of `pixels` unit variance at the config's scaling_factor; "keep" leaves all as it is.

    "measured" writes 1 / deviation into the config; "fold" multiplies the weights so that SCALE is right.
    """
    if scale == "keep":
        return
    deviation = latent_deviation(vae, pixels)
    if scale == "fold":
        fold(vae, 1 / (SCALE * deviation))
    factor = SCALE if scale == "fold" else 1 / deviation
    vae.register_to_config(scaling_factor=factor, shift_factor=None, latents_mean=None, latents_std=None)


@torch.no_grad()
def roundtrip_figures(vae: Any, pixels: Iterable[Tensor]) -> dict[str, float]:
    """Batches of x -> means over the pictures there and back: psnr in dB, ssim; deviations of z_0 and of its noise."""
    space, rows = LatentSpace(vae), []
    for x in pixels:
        mean, logvar = space.posterior(x)
        y = space.to_pixels(mean).cpu().clamp(-1, 1)
        for one, other, z, v in zip(x.split(1), y.split(1), mean.cpu(), logvar.cpu(), strict=True):
            noise = math.sqrt(float(v.exp().mean()))
            rows.append((roundtrip.psnr(one, other), roundtrip.ssim(one, other), float(z.std()), noise))
    names = ("psnr", "ssim", "latent_std", "posterior_std")
    means = map(fmean, zip(*rows, strict=True))
    return {"count": len(rows), **dict(zip(names, means, strict=True)), "scale": vae.config["scaling_factor"]}


def train_vae(
    out: Path,
    data: Any,
    plan: Plan,
    preset: str = "small",
    side: int = 64,
    recipe: Recipe = Recipe(),  # noqa: B008
    init: str | Path | None = None,
    scale: str | None = None,
    perceptual: LPIPS | None = None,
    held_out: Any = None,
    grow: bool = False,
) -> AutoencoderKL:
    """Pictures -> an AutoencoderKL in `out`/vae whose latents have unit variance at its config's scaling_factor.

    `data[i]` is (picture of `side` x `side`, caption). The run's state, log and pictures lie in `out` too; the same
    call goes on from there. `init` is an autoencoder to start from in place of a new one of `preset`; `grow` puts a
    level around it first, for pictures of twice the side (see `growing.grown`). `scale` is one of SCALES, as `rescale`
    takes it: "fold" by default, "keep" where the decoder alone learns; of a mixture the first part decides it, which is
    what a diffusion model will learn. What comes out is tried on the pictures of `held_out`, and the figures written to
    `out`/roundtrip.json. ValueError for what does not fit.
    """
    scale = scale or ("keep" if recipe.decoder_only else "fold")
    _refuse(preset, recipe, init, scale, grow)
    torch.manual_seed(plan.seed)
    vae: Any = checkpoints.load_vae(init).train() if init else autoencoder(**PRESETS[preset])
    vae = grown(vae) if grow else vae
    _refuse_shape(vae, side, recipe, scale)
    vae.register_to_config(sample_size=side)
    tried = data if held_out is None else held_out
    settings = {
        "kind": "vae",
        "side": side,
        "preset": None if init else preset,
        "init": init and checkpoints.fingerprint(checkpoints.locate(init)),
        **({"grown": True} if grow else {}),
        "recipe": asdict(recipe),
    }
    objective = VAEObjective(vae, recipe, perceptual)
    average: Any = fit(objective, data, plan, out, pixels_of, settings, reconstructions(out, tried))
    vae = average.vae
    rescale(vae, scale, batches(getattr(data, "parts", [data])[0], MEASURED))
    if processes.here().is_main_process:
        if held_out is not None:
            write_json(out / "roundtrip.json", roundtrip_figures(vae, batches(held_out, MEASURED)))
        vae = vae.cpu().to(memory_format=torch.contiguous_format)
        vae.save_pretrained(out / "vae")
    return vae


def reconstructions(out: Path, data: Any) -> Preview:
    """A folder and pictures -> a preview for the loop: 16 of them over what becomes of them, reconstructions.png."""
    shown, path = next(batches(data, 16)), out / "reconstructions.png"

    @torch.no_grad()
    def preview(average: Any, step: int) -> Path:
        there_and_back = average.vae(shown.to(average.vae.device)).sample.cpu()
        grid(to_images(shown) + to_images(there_and_back), columns=len(shown)).save(path)
        return path

    return preview


def batches(data: Any, count: int) -> Iterator[Tensor]:
    """`count` pictures spread evenly over a dataset, or all -> x (B,3,H,W), BATCH at a time."""
    count = min(count, len(data))
    places = [i * len(data) // count for i in range(count)]
    for start in tqdm(range(0, count, BATCH), desc="encoding", disable=None if count > BATCH else True):
        yield pixels_of([data[i] for i in places[start : start + BATCH]])


def pixels_of(items: Sequence[tuple[Image.Image, str]]) -> Tensor:
    """[(picture, caption), ...] -> x (B,3,H,W) in [-1,1]."""
    return to_pixels([picture for picture, _ in items])


def _refuse(preset: str, recipe: Recipe, init: str | Path | None, scale: str, grow: bool) -> None:
    known: Collection[str]
    for name, value, known in (("preset", preset, PRESETS), ("scale", scale, SCALES)):
        if value not in known:
            raise ValueError(f"unknown {name} {value!r}; expected one of {', '.join(known)}")
    if grow and (recipe.decoder_only or not init):
        raise ValueError("grow: expected init, an autoencoder to grow, and the encoder to learn too")
    if recipe.decoder_only and not init:
        raise ValueError("decoder_only: expected init, an autoencoder whose encoder stays as it is")
    if recipe.decoder_only and scale == "fold":
        raise ValueError("scale 'fold' changes the encoder, which decoder_only keeps; expected keep or measured")


def _refuse_shape(vae: Any, side: int, recipe: Recipe, scale: str) -> None:
    factor = 2 ** (len(vae.config["block_out_channels"]) - 1)
    least = max(
        SMALLEST if recipe.perceptual else 1,
        discriminator.smallest(recipe.discriminator) if recipe.adversarial else 1,
    )
    if side % factor or side < least:
        raise ValueError(
            f"side {side}: expected a multiple of {factor}, by which the autoencoder reduces, from {least} on"
        )
    if scale == "fold" and vae.quant_conv is None:
        raise ValueError("scale 'fold': the autoencoder has no quant_conv to take a factor; expected measured or keep")
