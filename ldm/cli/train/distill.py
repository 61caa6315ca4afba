"""ldm train distill: a diffusion model -> one that draws in four steps."""

from functools import partial
from typing import Annotated

from ldm.cli import options
from ldm.cli.train.diffusion import preview, saved
from ldm.cli.train.latents import Crop, Data, Flip, Samples, Side, Source, Split, latents, shown, space_of
from ldm.cli.train.plan import Out, planned
from ldm.training.plan import Plan

PANEL = "Teacher and student"


_option = partial(options.panelled, PANEL)


Teacher = Annotated[str, _option("The model: embedded name, folder, single file, or hub id.")]
GUIDANCE = "The teacher's guidance scale, which becomes part of the student.  [default: the model's]"
Guidance = Annotated[float | None, _option(GUIDANCE)]
Grid = Annotated[int, _option("Times that are learnt: the most steps that the student can draw in.")]
Decay = Annotated[float, _option("How much of the target stays in a step; the rest follows the student.")]
Huber = Annotated[float, _option("Where the loss turns from squares to absolute values.")]
Lora = Annotated[
    int, _option("Train adapters of this rank in place of the weights: OUT/lora, which diffusers loads, too.")
]


@planned(steps=2000, learning_rate=1e-4, warmup=100, ema=0.995, save_every=250)
def distill(
    out: Out,
    plan: Plan,
    teacher: Teacher = "emoji",
    guidance: Guidance = None,
    grid: Grid = 50,
    decay: Decay = 0.95,
    huber: Huber = 1e-3,
    lora: Lora = 0,
    data: Data = "emoji",
    split: Split = None,
    side: Side = None,
    samples: Samples = None,
    crop: Crop = "centre",
    flip: Flip = False,
) -> None:
    """Distils a model to four steps by consistency (LCM); OUT/model is in diffusers' layout, float16; or OUT/lora.

    The student draws without guidance: the teacher's, at one scale, is part of it, so that negative prompts and other
    scales do nothing. The data should be what the teacher has learnt from.

    **Examples**

    ldm train distill --teacher emoji --out runs/lcm --steps 2000

    ldm generate "a red apple" --model runs/lcm/model

    ldm train distill --teacher emoji --lora 16 --out runs/lcm-lora --steps 2000

    ldm generate "a red apple" --model runs/lcm-lora/lora
    """
    from ldm import checkpoints
    from ldm.training.distill import STUDENT, Distillation, lcm_config, train_distill

    contents = checkpoints.read(teacher)
    own = contents.configs.get("defaults", {})
    distillation = Distillation(
        own.get("guidance_scale", 7.5) if guidance is None else guidance, grid, decay, huber, lora
    )
    scheduler = lcm_config(contents.configs["scheduler"], grid)
    defaults = own | STUDENT
    space = space_of(teacher)
    source = Source(data, split, side, samples, crop, flip, plan.seed)
    found = latents(source, space, teacher, out)
    space.to("cpu")
    draw = preview(out, space, shown(found, source), scheduler, defaults)
    unet, text = train_distill(out, found, plan, teacher, distillation, draw)
    print(saved(out, space, unet, text, scheduler, defaults, teacher if lora else None))
