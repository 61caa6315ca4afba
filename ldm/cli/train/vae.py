"""ldm train vae: pictures -> an AutoencoderKL."""

import sys
from pathlib import Path
from typing import Annotated, Any

from ldm.cli import options
from ldm.cli.train.plan import Out, planned
from ldm.training.plan import Plan

DATA, LOSSES, RESULT = "Pictures", "What is minimised", "What comes out"


_option = options.panelled
SOURCE = (
    "emoji, leaves, gradients, text, photographs, digits, a folder of pictures, or tar shards; or several of them with "
    "weights, such as emoji:6+leaves:2+text:1."
)
Data = Annotated[str, _option(DATA, SOURCE)]
Split = Annotated[str | None, _option(DATA, "A part of the data, such as train.")]
Side = Annotated[int, _option(DATA, "Height and width of the pictures.")]
Crop = Annotated[str, _option(DATA, "Where a square is cut: centre or random.")]
Flip = Annotated[bool, _option(DATA, "Mirror half of the pictures.", "--flip")]
HeldOut = Annotated[int, _option(DATA, "Pictures that are kept from training, to try the result on.")]
Preset = Annotated[str, _option(RESULT, "small (f4, 1.4 M parameters), base (f8, 4.3 M) or tiny (for tests).")]
Init = Annotated[str | None, _option(RESULT, "An autoencoder to start from, in place of a new one.")]
GROW = "One more level around --init, such as f4 to f8, for pictures of twice the side: it begins as good as it was."
Grow = Annotated[bool, _option(RESULT, GROW, "--grow")]
DecoderOnly = Annotated[bool, _option(RESULT, "The encoder, and so every latent, stays as it is.", "--decoder-only")]
SCALE = (
    "How latents get unit variance: fold (the weights are multiplied so that the usual factor fits), measured (the "
    "factor that fits is written into config.json) or keep.  [default: fold; keep with --decoder-only]"
)
Scale = Annotated[str | None, _option(RESULT, SCALE)]
L1 = Annotated[float, _option(LOSSES, "Weight of the absolute error.", "--l1-weight")]
MSE = Annotated[float, _option(LOSSES, "Weight of the squared error.", "--mse-weight")]
KL = Annotated[float, _option(LOSSES, "Weight of the KL divergence: more, and latents are noisier.", "--kl-weight")]
Perceptual = Annotated[float, _option(LOSSES, "Weight of LPIPS, which must be at hand.", "--perceptual-weight")]
Lpips = Annotated[Path | None, _option(LOSSES, "LPIPS, a file or folder.  [default: where torch.hub keeps it]")]
EQ = "Weight of EQ-VAE: latents, shrunk and turned, are to decode to such pictures."
Equivariance = Annotated[float, _option(LOSSES, EQ, "--equivariance-weight")]
Adversarial = Annotated[float, _option(LOSSES, "Weight of a patch discriminator, 0 for none.", "--adversarial-weight")]
ADAPTIVE = "Times the ratio of the other losses' gradient at the last layer to its own."
Adaptive = Annotated[bool, _option(LOSSES, ADAPTIVE, "--adaptive/--no-adaptive")]
Start = Annotated[int, _option(LOSSES, "The first step with a discriminator.", "--adversarial-start")]
Discriminator = Annotated[str, _option(LOSSES, "small (patches of 34 pixels), base (70) or tiny (16).")]
DiscriminatorRate = Annotated[float, _option(LOSSES, "Its learning rate, as a share of the other.")]


@planned(steps=3000, batch_size=16, learning_rate=1.5e-3, ema=0.998, save_every=400)
def vae(
    out: Out,
    plan: Plan,
    data: Data = "emoji",
    split: Split = None,
    side: Side = 64,
    crop: Crop = "centre",
    flip: Flip = False,
    held_out: HeldOut = 64,
    preset: Preset = "small",
    init: Init = None,
    grow: Grow = False,
    decoder_only: DecoderOnly = False,
    scale: Scale = None,
    l1_weight: L1 = 1.0,
    mse_weight: MSE = 1.0,
    kl_weight: KL = 5e-4,
    perceptual_weight: Perceptual = 0.0,
    lpips: Lpips = None,
    equivariance_weight: Equivariance = 0.0,
    adversarial_weight: Adversarial = 0.0,
    adaptive: Adaptive = True,
    adversarial_start: Start = 0,
    discriminator: Discriminator = "small",
    discriminator_rate: DiscriminatorRate = 1.0,
) -> None:
    """Trains an AutoencoderKL on pictures; OUT/vae is in diffusers' layout, its latents of unit variance.

    Beside it lie the log, reconstructions at each checkpoint, and what is lost on pictures that it has not seen:
    OUT/roundtrip.json.

    **Examples**

    ldm train vae --out runs/vae --steps 3000

    ldm train vae --out runs/vae2 --init runs/vae/vae --steps 1600 --learning-rate 1e-3 --seed 1

    ldm train vae --init runs/vae2/vae --grow --side 128 --data emoji:8+leaves:1+gradients:1+text:1+photographs:2
    --crop random --steps 2000 --batch-size 8 --learning-rate 1e-3 --warmup 50 --out runs/vae3

    ldm train vae --data photos --side 128 --crop random --flip --preset base --out runs/photos

    ldm train vae --data photos --init stabilityai/sd-vae-ft-mse --side 256 --decoder-only --mse-weight 0
    --perceptual-weight 1 --adversarial-weight 0.5 --adversarial-start 1000 --learning-rate 1e-5 --out runs/decoder
    """
    from ldm.training import processes
    from ldm.training.vae import PRESETS, Recipe, train_vae

    options.one_of("--preset", preset, PRESETS)
    options.at_least_one(side=side, held_out=held_out)
    recipe = Recipe(
        l1_weight, mse_weight, kl_weight, perceptual_weight, equivariance_weight,
        adversarial_weight, adaptive, adversarial_start, discriminator, discriminator_rate, decoder_only,
    )  # fmt: skip
    sees = _lpips(perceptual_weight, lpips)
    learnt, tried = _pictures(data, split, side, crop, flip, held_out, plan.seed)
    train_vae(out, learnt, plan, preset, side, recipe, init, scale, sees, tried, grow)
    if processes.here().is_main_process:
        _report(out)


def _lpips(weight: float, path: Path | None) -> Any:
    """LPIPS where it is asked for; None, and a line that says so, where it is not."""
    from ldm.training.perceptual import find_lpips, load_lpips

    if weight:
        return load_lpips(path)
    if path:
        raise ValueError(f"--lpips {path}: expected a --perceptual-weight above 0 with it")
    at_hand = "is at hand: see --perceptual-weight" if find_lpips() else "is not at hand"
    print(f"ldm: no perceptual loss; LPIPS {at_hand}", file=sys.stderr)
    return None


def _pictures(data: str, split: str | None, side: int, crop: str, flip: bool, held_out: int, seed: int) -> Any:
    """What is learnt from, and what the result is tried on.

    That is emoji scenes that are held out, where there are emoji; else pictures of another seed of what is drawn here,
    and of photographs other ones. What is only read keeps some of it from training, which a mixture cannot.
    """
    import ldm.data
    from ldm.training.held_out import kept_apart

    names = [name for name, _ in ldm.data.parts_of(data)]
    drawn = [name for name in ldm.data.DRAWN if name in names]
    if drawn:
        kind = drawn[0]
        unseen = ldm.data.open(kind, side, split=ldm.data.UNSEEN.get(kind), count=held_out, seed=1_000_000 + seed)
        return ldm.data.open(data, side, crop, flip, split=split, seed=seed), unseen
    if len(names) > 1:
        raise ValueError(f"--data {data}: expected one of {', '.join(ldm.data.DRAWN)} in it, to try the result on")
    from ldm.data.pictures import Pictures

    learnt, kept = kept_apart(ldm.data.records(data, split), held_out)
    return Pictures(learnt, side, crop, flip), Pictures(kept, side)


def _report(out: Path) -> None:
    from ldm.checkpoints import read_json

    found = read_json(out / "roundtrip.json")
    words = f"{found['psnr']:.2f} dB, SSIM {found['ssim']:.4f}, scale {found['scale']:.5g}"
    print(f"ldm: {found['count']} pictures not seen in training: {words}", file=sys.stderr)
    print(out / "vae")
