"""A batch: files of prompts -> jobs, one a picture -> pictures, drawn together where they are alike.

    .txt     a prompt a line, then what it sets:  a red apple --seed 7 --size 96x64
    .jsonl   an object a line:                    {"prompt": "a red apple", "seed": 7, "name": "apple"}
    .csv     a column for each:                   prompt,seed,steps

Settings are those of `text_to_image`, or the command line's short names for them; `count`, `name` (of the file), and
`image`, `mask` and `strength` for edits. What a line leaves out is as for all. Nothing is drawn here that another
process has for its share: `torchrun` and `accelerate launch` say which process this is.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ldm import metadata
from ldm.files import object_of, rows_of, slug, text_of

if TYPE_CHECKING:
    from PIL import Image

    from ldm.pipeline import LatentDiffusion
    from ldm.sampling import Callback

AT_ONCE = 16  # pictures in one batch
MOST = 100_000  # pictures of one line
KINDS: dict[str, type] = {
    "prompt": str, "negative_prompt": str, "seed": int, "count": int, "name": str, "height": int, "width": int,
    "num_inference_steps": int, "guidance_scale": float, "sampler": str, "clip_skip": int, "image": str, "mask": str,
    "strength": float,
}  # fmt: skip
SHORT = {"negative": "negative_prompt", "steps": "num_inference_steps", "guidance": "guidance_scale", "n": "count"}
OPTION = re.compile(r"\s--(?=[a-z_-]+(\s|=|$))")
EQUALS = re.compile(r"(--[a-z_-]+)=")


@dataclass(frozen=True)
class Job:
    """One picture: where it goes, its words and its seed, and what it shares with others that it can be drawn with."""

    path: Path
    prompt: str
    seed: int
    negative_prompt: str = ""
    alike: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The same for jobs that can be drawn together."""
        return json.dumps(self.alike, sort_keys=True)

    def digest(self, pipeline: LatentDiffusion) -> str:
        """Ten hexadecimal digits of all that makes the picture, given pictures by what is in them."""
        given = [self.alike[key] for key in ("image", "mask") if key in self.alike]
        content = [Path(path).read_bytes() if Path(path).is_file() else str(path).encode() for path in given]
        asked = [self.prompt, self.seed, self.negative_prompt, self.alike, pipeline.hash]
        asked += [pipeline.loras.scales, pipeline.embeddings]
        return hashlib.sha256(b"".join([json.dumps(asked, sort_keys=True).encode(), *content])).hexdigest()[:10]

    def done(self, pipeline: LatentDiffusion) -> bool:
        """Whether its file is there and whole, and says that it was made just so, or does not say how it was made."""
        if not self.path.exists():
            return False
        try:
            told = metadata.told(self.path)
        except (ValueError, OSError):
            return False
        return not told or told.get("job") == self.digest(pipeline)


# ---- files of prompts ----


def read(path: Path, folder: Path, common: Mapping[str, Any]) -> list[Job]:
    """A file of prompts -> its jobs, whose pictures go into `folder`; `common` holds what lines leave out.

    Raises ValueError that names the line for a setting that is unknown or malformed, FileNotFoundError.
    """
    readers = {".txt": _texts, ".jsonl": _objects, ".csv": _table}
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path}: expected a file of prompts that ends in {', '.join(readers)}")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no file of prompts there")
    text = text_of(path)
    jobs: list[Job] = []
    for number, line in readers[path.suffix.lower()](text, path):
        try:
            jobs += jobs_of({**common, **_checked(line)}, folder, f"{number:04}")
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
    if twice := next((path for path, count in Counter(job.path for job in jobs).items() if count > 1), None):
        raise ValueError(f"{path}: two pictures are called {twice.name}")
    return jobs


def jobs_of(settings: Mapping[str, Any], folder: Path, number: str) -> list[Job]:
    """One line's settings -> a job for each of its `count` pictures."""
    alike = dict(settings)
    prompt, seed = alike.pop("prompt", ""), alike.pop("seed", 0)
    count, negative = alike.pop("count", 1), alike.pop("negative_prompt", "")
    if not 1 <= count <= MOST:
        raise ValueError(f"count {count}: expected 1 to {MOST:,}")
    if lacking := [key for key in ("strength", "mask") if key in alike and "image" not in alike]:
        raise ValueError(f"{lacking[0]} goes with an image: expected one")
    name = alike.pop("name", None) or f"{number}-{slug(prompt)}"
    if Path(name).name != name:
        raise ValueError(f"name {name!r}: expected a file's name, without folders")
    stem, suffix = (name, ".png") if Path(name).suffix.lower() not in metadata.FORMATS else os.path.splitext(name)
    endings = [""] if "name" in settings and count == 1 else [f"-{seed + j}" for j in range(count)]
    return [Job(folder / f"{stem}{ending}{suffix}", prompt, seed + j, negative, alike)
            for j, ending in enumerate(endings)]  # fmt: skip


def _texts(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.startswith("#"):
            begin = OPTION.search(f" {line}")
            prompt, rest = (line, "") if begin is None else (line[: begin.start()], line[max(0, begin.start() - 1) :])
            try:
                words = shlex.split(EQUALS.sub(r"\1 ", rest))
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
            names, values = [word.removeprefix("--").replace("-", "_") for word in words[::2]], words[1::2]
            if len(names) != len(values):
                raise ValueError(f"{path}, line {number}: {names[-1]} has no value")
            yield number, {"prompt": prompt.strip(), **dict(zip(names, values, strict=True))}


def _objects(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield number, object_of(line, f"{path}, line {number}")


def _table(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, row in rows_of(text, str(path)):
        yield number, {key.strip(): value for key, value in row.items() if value != ""}


def _checked(line: Mapping[str, Any]) -> dict[str, Any]:
    """What a line sets, by its full names and as the right kind of value."""
    found: dict[str, Any] = {}
    for key, value in line.items():
        name = SHORT.get(key, key)
        if name == "size":
            width, _, height = str(value).lower().partition("x")
            found |= {"width": int(width), "height": int(height or width)}
        elif name not in KINDS:
            raise ValueError(f"{key!r}: expected one of {', '.join([*KINDS, *SHORT, 'size'])}")
        elif value is not None:
            found[name] = _as(KINDS[name], key, value)
    return found


def _as(kind: type, key: str, value: Any) -> Any:
    try:
        result = kind(value)
    except (ValueError, TypeError, OverflowError):
        result = None
    if (
        result is None
        or isinstance(value, bool)
        or (kind is int and str(value).strip() not in (str(result), f"{result}.0"))
    ):
        raise ValueError(f"{key} {value!r}: expected {'a whole number' if kind is int else 'a number'}")
    return result


# ---- drawing ----


def process() -> tuple[int, int]:
    """Which process this is, from 0, and of how many, where `torchrun` or `accelerate launch` started several."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def share(jobs: Sequence[Job]) -> list[Job]:
    """The jobs of this process: every n-th."""
    own, processes = process()
    return list(jobs[own::processes])


def batches(jobs: Sequence[Job], size: int = AT_ONCE) -> list[list[Job]]:
    """Jobs that can be drawn together, at most `size`; in the order in which the first of each kind stands."""
    kinds: dict[str, list[Job]] = {}
    for job in jobs:
        kinds.setdefault(job.key, []).append(job)
    return [kind[i : i + size] for kind in kinds.values() for i in range(0, len(kind), size)]


def drawn(
    pipeline: LatentDiffusion, jobs: Sequence[Job], callback: Callback | None = None, size: int = AT_ONCE
) -> Iterator[tuple[Job, Image.Image | Exception]]:
    """Jobs -> each with its picture, or with the error that only it met: where a batch fails, each is tried alone."""
    for batch in batches(jobs, size):
        try:
            images: list[Any] = together(pipeline, batch, callback)
            told = [image.info["ldm"] | {"job": job.digest(pipeline)} for job, image in zip(batch, images, strict=True)]
            images = [metadata.attach(image, made) for image, made in zip(images, told, strict=True)]
        except (ValueError, TypeError, OSError, RuntimeError) as error:
            images = [error] if len(batch) == 1 else []
        if images:
            yield from zip(batch, images, strict=True)
        else:
            for job in batch:
                yield from drawn(pipeline, [job], callback)


def together(pipeline: LatentDiffusion, batch: Sequence[Job], callback: Callback | None = None) -> list[Image.Image]:
    """Jobs that are alike -> their pictures."""
    alike: dict[str, Any] = dict(batch[0].alike)
    task: Any = pipeline.text_to_image
    if "image" in alike:
        task = pipeline.inpaint if "mask" in alike else pipeline.image_to_image
    told = {"negative_prompt": [job.negative_prompt for job in batch], "seed": [job.seed for job in batch]}
    return task([job.prompt for job in batch], callback=callback, **told, **alike)


def note(manifest: Path, job: Job, result: Image.Image | Exception) -> None:
    """Adds one line to a manifest: the file and what made it, or the error. Several processes may write to it."""
    told = {"error": " ".join(str(result).split())} if isinstance(result, Exception) else result.info["ldm"]
    line = json.dumps({"file": job.path.name, "prompt": job.prompt, "seed": job.seed, **told}, ensure_ascii=False)
    with open(manifest, "ab", buffering=0) as file:  # one write, which the system does not mix with another's
        file.write(f"{line}\n".encode())
