"""CLIP (Radford et al. 2021) as a judge: does a picture show what its prompt says? No weights are fetched.

x --resized, cut, normalised--> features (B,D);   prompts --tokenizer--> features (B,D);   the cosine between them
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ldm.checkpoints import CheckpointError, named
from ldm.checkpoints.modules import quiet
from ldm.images import to_images, to_pixels
from ldm.text import Tokenizer

PUBLISHED = "openai/clip-vit-large-patch14"  # what is looked for where no folder is named
FILES = "config.json, model.safetensors (or pytorch_model.bin), vocab.json and merges.txt (or tokenizer.json)"
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of pictures in [0,1]
BATCH = 32


@dataclass(frozen=True, eq=False)
class Clip:
    """transformers' CLIPModel and its tokenizer; what they give is of length 1, float32 and on the CPU."""

    model: Any
    tokenizer: Tokenizer

    @torch.no_grad()
    def images(self, x: Tensor) -> Tensor:
        """x (B,3,H,W) in [-1,1], any size -> features (B,D)."""
        seen = framed(x, self.model.config.vision_config.image_size).to(self.model.device)
        outputs = [self.model.vision_model(pixel_values=part).pooler_output for part in seen.split(BATCH)]
        return F.normalize(self.model.visual_projection(torch.cat(outputs))).cpu()

    @torch.no_grad()
    def texts(self, prompts: Sequence[str]) -> Tensor:
        """B prompts, taken literally -> features (B,D); the log says which words did not fit."""
        ids = torch.tensor(self.tokenizer(prompts), device=self.model.device)
        outputs = [self.model.text_model(input_ids=part).pooler_output for part in ids.split(BATCH)]
        return F.normalize(self.model.text_projection(torch.cat(outputs))).cpu()

    def scores(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Features (B,D) of pictures, B prompts -> (B,): 100 max(cos, 0) (Hessel et al. 2021, eq. 1, w = 100)."""
        return 100 * (images * self.texts(prompts)).sum(1).clamp_min(0)


def framed(x: Tensor, side: int) -> Tensor:
    """x (B,3,H,W) in [-1,1] -> (B,3,side,side) as CLIP was shown pictures.

    The shorter side is resized (bicubic, in 8 bits, as Pillow does it), the centre is cut out, colours are normalised.
    """
    height, width = x.shape[-2:]
    short = min(height, width)
    size = (side * width // short, side * height // short)
    x = to_pixels([image.resize(size, Image.Resampling.BICUBIC) for image in to_images(x)])
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    x = (x[..., top : top + side, left : left + side] + 1) / 2
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(DEVIATION).view(3, 1, 1)


def find_clip(folder: Path | None = None) -> Path | None:
    """The folder of a CLIPModel of transformers, by default PUBLISHED in the hub's cache; None for neither."""
    if folder is None:
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(PUBLISHED, "config.json")
        return Path(cached).parent if isinstance(cached, str) else None
    return folder if (folder / "config.json").is_file() else None


def weights_in(folder: Path) -> list[Path]:
    """The files that transformers reads a model's weights from: safetensors where there are some, in parts or whole."""
    return sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


def load_clip(folder: Path | None = None, device: str = "cpu") -> Clip:
    """CLIP from a folder, or the hub's cache.

    FileNotFoundError says what to put where, CheckpointError what is damaged or missing in it.
    """
    found = find_clip(folder)
    if found is None:
        where = folder or f"a folder to name, or fetch {PUBLISHED} into the hub's cache"
        raise FileNotFoundError(f"CLIP's weights are not at hand; put {FILES} into {where}")
    import transformers

    kind: Any = transformers.CLIPModel
    with named(found), quiet():
        model, report = kind.from_pretrained(
            found, local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
    if missing := sorted(report["missing_keys"]):  # transformers would draw them at random
        raise CheckpointError(f"{found} lacks {len(missing)} tensors of a CLIPModel, {missing[0]} the first")
    with named(found):
        tokenizer = Tokenizer.from_pretrained(found)
    tokenizer.length = min(tokenizer.length, model.config.text_config.max_position_embeddings)
    return Clip(model.eval().to(device), tokenizer)
