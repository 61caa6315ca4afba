"""ldm train bridge: pairs of pictures, degraded and clean -> a model that repairs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ldm.cli import options
from ldm.cli.train.latents import PIXELS, Crop, Data, Flip, Source, Split, space_of
from ldm.cli.train.plan import Out, planned
from ldm.training.plan import Plan

if TYPE_CHECKING:
    from ldm.latents import LatentSpace

PAIRS, BRIDGE = "Pairs", "The bridge"
STEPS = 10  # evaluations that a model recommends
ROUNDTRIP = "roundtrip"

DEGRADE = (
    "What is done to clean pictures: blur, jpeg, downsample or mask, with a strength or a range as in jpeg:5-30; or "
    "roundtrip:MODEL, through that autoencoder and back."
)
Degrade = Annotated[str | None, options.panelled(PAIRS, DEGRADE)]
DEGRADED = "A folder of degraded pictures, named as those of the folder --data."
DegradedFolder = Annotated[Path | None, options.panelled(PAIRS, DEGRADED)]
Side = Annotated[int, options.panelled(PAIRS, "Height and width that pictures are brought to before.")]
Samples = Annotated[int | None, options.panelled(PAIRS, "The first so many.  [default: all; 2000 of what is drawn]")]
Patch = Annotated[
    int | None, options.panelled(PAIRS, "Learn from squares of this side.  [default: --side; 64 of two folders]")
]
Vae = Annotated[str, options.panelled(BRIDGE, "The autoencoder in whose latents it leads; pixels for none.")]
ERRORS = "An error classifier (ldm train error-classifier), whose map of a degraded picture multiplies the noise."
Errors = Annotated[Path | None, options.panelled(BRIDGE, ERRORS)]
TARGET = "What the network emits: residual, or epsilon, which copies what is right but amplifies errors at the far end."
Target = Annotated[str, options.panelled(BRIDGE, TARGET)]
BetaMax = Annotated[float, options.panelled(BRIDGE, "How much noise: 0.3, or 1 for little that is left of a picture.")]
Ode = Annotated[
    bool, options.panelled(BRIDGE, "Without noise, the limit of an ordinary differential equation.", "--ode")
]
Alone = Annotated[bool, options.panelled(BRIDGE, "The network is not shown the degraded picture beside.", "--alone")]
Preset = Annotated[str, options.panelled(BRIDGE, "local (3 M parameters, no attention), mini, small or tiny.")]


@planned(steps=3000, batch_size=16, warmup=100, ema=0.999)
def bridge(
    out: Out,
    plan: Plan,
    data: Data = "emoji",
    degrade: Degrade = None,
    degraded: DegradedFolder = None,
    split: Split = None,
    side: Side = 64,
    samples: Samples = None,
    patch: Patch = None,
    crop: Crop = "centre",
    flip: Flip = False,
    vae: Vae = PIXELS,
    errors: Errors = None,
    target: Target = "residual",
    beta_max: BetaMax = 0.3,
    ode: Ode = False,
    alone: Alone = False,
    preset: Preset = "local",
) -> None:
    """Trains a bridge (I2SB) from degraded pictures to clean ones; OUT/model is what ldm refine takes.

    **Examples**

    ldm train bridge --data photos --side 128 --degrade jpeg:5-30 --out runs/unjpeg

    ldm train bridge --data emoji --side 128 --patch 64 --degrade roundtrip:emoji --out runs/sharper

    ldm train bridge --data clean/ --degraded degraded/ --patch 64 --errors runs/errors/classifier --out runs/repair
    """
    if (degrade is None) == (degraded is None):
        raise ValueError("expected one of --degrade, what is done to --data, and --degraded, a folder")
    from ldm.bridging import EMITTED, Bridge, symmetric
    from ldm.training.bridge import train_bridge
    from ldm.training.presets import PRESETS

    options.one_of("--target", target, EMITTED)
    options.one_of("--preset", preset, PRESETS)
    process = Bridge(symmetric(beta_max=beta_max), target, ode)
    source = Source(data, split, side, samples, crop, flip, plan.seed)
    space, beside = space_of(vae), [] if alone else ["z_T"]
    classifier, beside = (_classifier(errors), [*beside, "error_map"]) if errors else (None, beside)
    pairs = _paired(source, degrade, degraded, patch, out)
    items = _items(pairs, space, beside, classifier, out)
    space.to("cpu")
    unet = train_bridge(out, items, plan, process, preset)
    print(_saved(out, space, unet, process, beside, classifier))


def _classifier(folder: Path) -> Any:
    from ldm.tryon.classifier import ErrorClassifier

    return ErrorClassifier.from_pretrained(folder).eval().requires_grad_(False)


def _paired(source: Source, degrade: str | None, degraded: Path | None, patch: int | None, out: Path) -> Any:
    """Pairs of pictures as they are asked for."""
    from ldm import data
    from ldm.data.degrading import degradation
    from ldm.data.pairs import Degraded, FolderPairs, Patches

    if degraded is not None:
        return Patches(FolderPairs(degraded, Path(source.data)), patch or 64)
    assert degrade is not None
    count = source.samples or (2000 if source.data in data.DRAWN else None)
    clean = data.open(source.data, source.side or 64, source.crop, source.flip, split=source.split, count=count,
                      seed=source.seed)  # fmt: skip
    name, _, model = degrade.partition(":")
    if name == ROUNDTRIP:
        pairs: Any = _there_and_back(clean, model or "emoji", out)
    else:
        pairs = Degraded(clean, degradation(degrade), degrade)
    return Patches(pairs, patch) if patch else pairs


def _there_and_back(clean: Any, model: str, out: Path) -> Any:
    """Pictures beside what an autoencoder makes of them, made once into `out`."""
    from ldm import checkpoints
    from ldm.data.pairs import Degraded, Made
    from ldm.training.bridge import kept

    space = space_of(model)
    how = f"{ROUNDTRIP} {checkpoints.fingerprint(checkpoints.locate(model))}"
    pairs = Degraded(clean, lambda image, generator: space.reconstruct(image)[0], how)
    out.mkdir(parents=True, exist_ok=True)
    tensors = kept(out / "pairs.safetensors", pairs.identity(), lambda: {"pixels": Made.of(pairs).pixels})
    return Made(tensors["pixels"], pairs.identity())


def _items(pairs: Any, space: "LatentSpace", beside: list[str], classifier: Any, out: Path) -> Any:
    """What the network learns from: pixels as they come, or latents, encoded into `out` once."""
    from ldm.training.bridge import EncodedPairs, PixelPairs, encode_pairs, kept
    from ldm.training.encoding import fingerprint

    errors = None if classifier is None else classifier.error_map
    if space.factor == 1:
        return PixelPairs(pairs, beside, errors)
    made_by = {"pairs": pairs.identity(), "space": fingerprint(space.autoencoder, space.entries()),
               "errors": None if classifier is None else fingerprint(classifier)}  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    tensors = kept(out / "encoded.safetensors", made_by, lambda: encode_pairs(pairs, space, errors))
    return EncodedPairs(tensors, made_by, beside)


def _saved(out: Path, space: "LatentSpace", unet: Any, process: Any, beside: list[str], classifier: Any) -> Path:
    """Writes the model, once whichever number of processes trained it; -> where."""
    import torch

    from ldm.denoising import Denoiser
    from ldm.pipeline import LatentDiffusion
    from ldm.training import processes

    where = out / "model"
    if processes.here().is_main_process:
        defaults = {"num_inference_steps": STEPS, "guidance_scale": 1.0, "beside": beside}
        made = LatentDiffusion(space, Denoiser(unet, process), None, process.config(), defaults)
        made.errors = classifier
        made.save_pretrained(where, torch.float16)
    return where
