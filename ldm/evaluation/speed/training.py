"""How fast a diffusion model is trained on a latent cache, beside a program that encodes in every step.

    (seconds of `warmup` + n steps) - (seconds of `warmup` steps) = seconds of n steps

Both are run from start to end, in turn, with two numbers of steps: so imports, loading, the first steps and what is
written at the end cancel, and nothing of what a program prints is believed. The peer is diffusers' own
train_text_to_image.py, or any script with its options, as it stands.
"""

import ast
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from tqdm import tqdm

from ldm.data.emoji import EmojiScenes
from ldm.evaluation.speed.processes import LDM, Run, Runner, machine, ran, versions
from ldm.evaluation.speed.turns import summary

WARMUP = 10  # steps that both runs of a program take
EPOCH = 32  # batches: so many pictures are drawn


@dataclass(frozen=True)
class Setting:
    """What both programs do: AdamW at a constant rate on a U-Net alone, every caption shown, an average kept."""

    side: int = 64
    picture_side: int = 64  # of the pictures in the folder, which both bring to `side`
    batch_size: int = 16
    mixed_precision: str = "no"  # bf16 or fp16
    learning_rate: float = 1e-5
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.9999  # of which the peer has no option: its own
    seed: int = 0

    @property
    def pictures(self) -> int:
        return EPOCH * self.batch_size


@dataclass(frozen=True)
class Rate:
    """Images per second beyond start-up, from a short run and a long one."""

    short: Run
    long: Run
    images: int  # that the long run had more

    def __post_init__(self) -> None:
        if self.long.seconds <= self.short.seconds:
            raise ValueError(
                f"{self.images} images more took no longer ({self.short.seconds:.2f} s, then {self.long.seconds:.2f}): "
                "expected more --steps, and a machine that does nothing else"
            )

    @property
    def images_per_second(self) -> float:
        return self.images / (self.long.seconds - self.short.seconds)


def compare_training(
    peer: str | Path, model: str = "emoji", setting: Setting = Setting(), steps: int = 200, rounds: int = 3,
    run: Runner = ran,
) -> dict[str, Any]:  # fmt: skip
    """Trains `model` by the script `peer` and by `ldm train diffusion`, in turn -> what json can write.

    Images per second of each, their ratio, memory, and the encoding of the cache, which is paid once: medians and every
    round. Pictures are emoji scenes, `setting.picture_side` high and wide. FileNotFoundError without the script,
    ValueError where it is none, needs packages that are not installed, or fails.
    """
    peer = Path(peer)
    check(peer)
    with TemporaryDirectory() as name:
        folder = Path(name)
        run([*LDM, "convert", model, folder / "model", "--dtype", "float32"])
        draw(folder / "pictures", setting)
        found = [one_round(peer, folder, setting, steps, run) for _ in tqdm(range(rounds), "rounds", disable=None)]
    theirs, encoding, ours = ([each[i] for each in found] for i in range(3))
    return {
        "what": "training on a latent cache beside a script that encodes in every step, images per second",
        "model": model,
        "ldm": figures(ours),
        "peer": {"script": peer.name, "sha256": hashlib.sha256(peer.read_bytes()).hexdigest(), **figures(theirs)},
        "ratio": summary([own.images_per_second / other.images_per_second for own, other in zip(ours, theirs)]),
        "encoding": figures(encoding) | {"epochs_until_paid": epochs_until_paid(theirs, encoding, ours)},
        "memory": "memory_mib: largest resident set of the process; gpu_memory_mib: nvidia-smi, five times a second",
        "settings": {**asdict(setting), "pictures": setting.pictures, "steps": steps, "warmup": WARMUP},
        "machine": machine(),
        "versions": versions("torch", "diffusers", "transformers", "accelerate"),
    }


def one_round(peer: Path, folder: Path, setting: Setting, steps: int, run: Runner) -> tuple[Rate, Rate, Rate]:
    """The peer's training, the encoding, and the training on what was encoded."""
    few, many, batch = WARMUP, WARMUP + steps, setting.batch_size
    with TemporaryDirectory(dir=folder) as place:  # new for each run: nothing to resume, no disk that fills up
        out = (Path(place) / str(i) for i in count())
        short, long = (run(peer_training(peer, folder, next(out), setting, n)) for n in (few, many))
        theirs = Rate(short, long, steps * batch)
        short = run(encoding(folder, next(out), setting, batch))
        long = run(encoding(folder, cache := next(out), setting, setting.pictures))
        encoded = Rate(short, long, setting.pictures - batch)
        short, long = (run(own_training(folder, cache, next(out), setting, n)) for n in (few, many))
    return theirs, encoded, Rate(short, long, steps * batch)


# ---- the commands ----


def peer_training(script: Path, folder: Path, out: Path, setting: Setting, steps: int) -> list[object]:
    return [
        sys.executable, script, "--pretrained_model_name_or_path", folder / "model",
        "--train_data_dir", folder / "pictures", "--cache_dir", folder / "datasets", "--output_dir", out,
        "--resolution", setting.side, "--center_crop", "--train_batch_size", setting.batch_size,
        "--max_train_steps", steps, "--checkpointing_steps", steps + 1, "--use_ema", "--mixed_precision",
        setting.mixed_precision, "--learning_rate", setting.learning_rate, "--lr_scheduler", "constant",
        "--lr_warmup_steps", 0, "--adam_weight_decay", setting.weight_decay, "--max_grad_norm", setting.clip,
        "--seed", setting.seed,
    ]  # fmt: skip


def encoding(folder: Path, out: Path, setting: Setting, count: int) -> list[object]:
    return [
        *LDM, "encode", folder / "pictures", "--out", out, "--vae", folder / "model", "--text", folder / "model",
        "--side", setting.side, "--count", count, "--batch-size", setting.batch_size,
    ]  # fmt: skip


def own_training(folder: Path, cache: Path, out: Path, setting: Setting, steps: int) -> list[object]:
    return [
        *LDM, "train", "diffusion", "--init", folder / "model", "--data", cache, "--out", out,
        "--side", setting.side, "--batch-size", setting.batch_size, "--steps", steps, "--save-every", steps + 1,
        "--freeze-text", "--drop", 0, "--ema", setting.ema, "--mixed-precision", setting.mixed_precision,
        "--learning-rate", setting.learning_rate, "--schedule", "constant", "--warmup", 0,
        "--weight-decay", setting.weight_decay, "--clip", setting.clip, "--seed", setting.seed,
    ]  # fmt: skip


# ---- what they need ----


def check(script: Path) -> None:
    """FileNotFoundError without the script; ValueError where it is no Python, or imports what is not installed."""
    if not script.is_file():
        raise FileNotFoundError(f"--peer {script}: no such file; expected diffusers' train_text_to_image.py")
    try:
        tree = ast.parse(script.read_bytes())
    except (SyntaxError, ValueError):
        raise ValueError(f"--peer {script}: expected a script in Python") from None
    names = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in tree.body if isinstance(node, ast.ImportFrom)}
    missing = sorted(name for name in {name.split(".")[0] for name in names} if find_spec(name) is None)
    if missing:
        raise ValueError(f"--peer {script} needs {', '.join(missing)}: pip install {' '.join(missing)}")


def draw(folder: Path, setting: Setting) -> None:
    """Emoji scenes into a folder as JPEG, with their captions in metadata.jsonl, as both programs read them."""
    folder.mkdir()
    with open(folder / "metadata.jsonl", "w", encoding="utf-8") as file:
        for i, item in enumerate(EmojiScenes(setting.picture_side, setting.seed, length=setting.pictures)):
            item.picture.save(folder / f"{i}.jpg", quality=95)
            file.write(json.dumps({"file_name": f"{i}.jpg", "text": item.caption}) + "\n")


# ---- the figures ----


def figures(rates: Sequence[Rate]) -> dict[str, Any]:
    """Rates -> images per second, seconds of the short and the long runs, and the memory of the long ones."""
    gpu = [rate.long.gpu_memory_mib for rate in rates if rate.long.gpu_memory_mib is not None]
    return {
        "images_per_second": summary([rate.images_per_second for rate in rates]),
        "seconds": [[round(run.seconds, 2) for run in (rate.short, rate.long)] for rate in rates],
        "memory_mib": max(rate.long.memory_mib for rate in rates),
        "gpu_memory_mib": max(gpu) if gpu else None,
    }


def epochs_until_paid(theirs: Sequence[Rate], encoded: Sequence[Rate], ours: Sequence[Rate]) -> float | None:
    """After how many epochs the encoding has saved what it cost; None where it never will."""
    peer, once, own = (1 / median(rate.images_per_second for rate in rates) for rates in (theirs, encoded, ours))
    return round(once / (peer - own), 2) if peer > own else None
