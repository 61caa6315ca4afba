"""ldm train diffusion: latents, and what they are of -> a U-Net and a text encoder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ldm.cli import options
from ldm.cli.train.latents import PIXELS, Crop, Data, Flip, Samples, Side, Source, Split, latents, shown, space_of
from ldm.cli.train.plan import Out, planned
from ldm.training.plan import Plan

if TYPE_CHECKING:
    from ldm.checkpoints import Contents
    from ldm.latents import LatentSpace
    from ldm.training.conditions import Doors
    from ldm.training.diffusion import Recipe

RESULT, TOLD, LEARNT = "What comes out", "What the network is told", "What is learnt"


_option = options.panelled
VAE = "The autoencoder whose latents are learnt; pixels for none: a model of pixels.  [default: --init's]"
Vae = Annotated[str | None, _option(RESULT, VAE)]
Preset = Annotated[str, _option(RESULT, "small (11 M parameters), mini (3 M) or tiny (for tests).")]
INIT = "A model to start from in place of a new one; its latents must be --vae's."
Init = Annotated[str | None, _option(RESULT, INIT)]
LORA = "Train adapters of this rank in place of --init's weights: OUT/lora, a model here, a LoRA for diffusers."
Lora = Annotated[int, _option(RESULT, LORA)]
Condition = Annotated[str | None, _option(TOLD, "text, class or none.  [default: text; --init's]")]
BESIDE = (
    "Shown beside the latents: picture (or layout) or mask, white where to draw, from the data's second pictures; "
    "quarter or eighth, the picture itself at low resolution."
)
Beside = Annotated[str | None, _option(TOLD, BESIDE)]
Drop = Annotated[float, _option(TOLD, "Share of samples without words and class, for guidance.")]
DropBeside = Annotated[float, _option(TOLD, "Share of samples without the picture beside.", "--drop-beside")]
FreezeText = Annotated[bool, _option(TOLD, "The text encoder stays as it is.", "--freeze-text")]
NEW = "With --init: its vocabulary is learnt anew from the captions, and made long enough for them."
NewVocabulary = Annotated[bool, _option(TOLD, NEW, "--new-vocabulary")]
PREDICTION = "What the network emits: epsilon, v_prediction or sample.  [default: v_prediction; --init's]"
Prediction = Annotated[str | None, _option(LEARNT, PREDICTION)]
ZERO_SNR = "Rescale the betas to zero terminal SNR: the last time is pure noise."
ZeroSnr = Annotated[bool, _option(LEARNT, ZERO_SNR, "--zero-snr")]
Weighting = Annotated[str, _option(LEARNT, "What each time counts: uniform, min_snr or cosine.")]
Gamma = Annotated[float, _option(LEARNT, "Of min_snr: the SNR above which times count no more.")]
OFFSET = "Standard deviation of noise that is one number for each channel: lighter and darker pictures."
Offset = Annotated[float, _option(LEARNT, OFFSET, "--offset-noise")]


@planned(steps=4200, warmup=200, ema=0.9995, save_every=250)
def diffusion(
    out: Out,
    plan: Plan,
    data: Data = "emoji",
    split: Split = None,
    side: Side = None,
    samples: Samples = None,
    crop: Crop = "centre",
    flip: Flip = False,
    vae: Vae = None,
    preset: Preset = "small",
    init: Init = None,
    lora: Lora = 0,
    condition: Condition = None,
    beside: Beside = None,
    drop: Drop = 0.1,
    drop_beside: DropBeside = 0.0,
    freeze_text: FreezeText = False,
    new_vocabulary: NewVocabulary = False,
    prediction: Prediction = None,
    zero_snr: ZeroSnr = False,
    weighting: Weighting = "uniform",
    gamma: Gamma = 5.0,
    offset_noise: Offset = 0.0,
) -> None:
    """Trains a U-Net, with its text encoder if it is told words; OUT/model is in diffusers' layout, these in float16.

    **Examples**

    ldm train diffusion --vae runs/vae/vae --out runs/diffusion --steps 4200

    ldm train diffusion --init emoji --out runs/longer --steps 6000 --learning-rate 5e-4 --seed 1

    ldm train diffusion --data digits --side 16 --vae pixels --condition class --preset mini --out runs/digits

    ldm train diffusion --data photos --side 256 --vae runs/vae/vae --condition none --beside quarter --out runs/sharper

    ldm train diffusion --data photos --side 512 --init stable-diffusion-v1-5/stable-diffusion-v1-5 --lora 16
    --freeze-text --learning-rate 1e-4 --weighting min_snr --out runs/style
    """
    from ldm import checkpoints
    from ldm.training.diffusion import PRESETS, Recipe, doors_of, recommended, train_diffusion

    options.one_of("--preset", preset, PRESETS)
    recipe = Recipe(weighting, gamma, offset_noise, drop, drop_beside, not freeze_text, new_vocabulary, lora)
    latents_of = vae or init
    if not latents_of:
        raise ValueError("--vae is missing: the autoencoder whose latents are learnt (or --init, a model that has one)")
    if lora and not init:
        raise ValueError(f"--lora {lora}: expected --init, the model that the adapters are for")
    first = checkpoints.read(init) if init else None
    scheduler = _scheduler(first, prediction, zero_snr, recipe) | ({"clip_sample": True} if vae == PIXELS else {})
    space = space_of(latents_of)
    source = Source(data, split, side, samples, crop, flip, plan.seed, beside or "picture")
    found = latents(source, space, latents_of, out)
    space.to("cpu")
    doors = doors_of(first.configs["unet"], "text_encoder" in first.tensors) if first else None
    if doors is None or condition or beside:
        doors = _doors(condition or "text", beside, found)
    defaults = recommended(doors, recipe, scheduler) | (first.configs.get("defaults", {}) if first else {})
    draw = preview(out, space, shown(found, source), scheduler, defaults)
    unet, text = train_diffusion(out, found, plan, preset, scheduler, draw, init, recipe, doors)
    print(saved(out, space, unet, text, scheduler, defaults, init if lora else None))


def _scheduler(first: "Contents | None", prediction: str | None, zero_snr: bool, recipe: "Recipe") -> dict[str, Any]:
    """The noise schedule and the target, checked with the weighting before anything is encoded."""
    from ldm.noising import Diffusion
    from ldm.training.diffusion import SCHEDULER, scheduler_config
    from ldm.training.weighting import weighting

    scheduler = scheduler_config(prediction, zero_snr, first.configs["scheduler"] if first else SCHEDULER)
    weighting(recipe.weighting, Diffusion.from_config(scheduler), recipe.gamma)
    return scheduler


def _doors(condition: str, beside: str | None, data: Any) -> "Doors":
    """What the network is told, as the data have it."""
    from ldm.training.conditions import Doors

    options.one_of("--condition", condition, ("text", "class", "none"))
    extras = data[0][3] if len(data[0]) > 3 else {}
    if beside and "beside" not in extras:
        raise ValueError(f"--beside {beside}: the data hold no second picture, a condition, for each")
    if condition == "class" and not getattr(data, "classes", []):
        raise ValueError("--condition class: the data have no classes, such as folders by name")
    return Doors(condition == "text", len(data.classes) if condition == "class" else 0,
                 len(extras["beside"]) if beside else 0)  # fmt: skip


def preview(out: Path, space: "LatentSpace", items: Any, scheduler: dict[str, Any], defaults: dict[str, Any]) -> Any:
    """(U-Net, text encoder, step) -> the path of the samples that were drawn."""

    def draw(unet: Any, text: Any, step: int) -> Path:
        from ldm import images, metadata
        from ldm.training.samples import samples

        drawn = samples(space, unet, text, items, scheduler, defaults)
        path = out / f"samples-{step}.png"
        metadata.save(images.grid(drawn, columns=len(drawn)), path)
        return path

    return draw


def saved(
    out: Path,
    space: "LatentSpace",
    unet: Any,
    text: Any,
    scheduler: dict[str, Any],
    defaults: dict[str, Any],
    adapted: str | None = None,
) -> Path:
    """Writes the model, once whichever number of processes trained it, or what `adapted` its LoRA is for; -> where."""
    import torch

    from ldm.checkpoints.adapters import name_base
    from ldm.denoising import Denoiser
    from ldm.noising import Diffusion
    from ldm.pipeline import LatentDiffusion
    from ldm.training import processes

    where = out / ("lora" if adapted else "model")
    if not processes.here().is_main_process:
        return where
    if adapted:
        name_base(where, adapted, scheduler, defaults)
    else:
        denoiser = Denoiser(unet, Diffusion.from_config(scheduler))
        for part in filter(None, (denoiser, text)):  # not the autoencoder: a cache of its latents is to stay its own
            part.to(dtype=torch.float16)
        LatentDiffusion(space, denoiser, text, scheduler, defaults).save_pretrained(where)
    return where
