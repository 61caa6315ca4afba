"""Makes docs/api.md from the docstrings of all public names:  python docs/api.py

The source is read, not imported: signatures stand as they are written, and nothing heavy is loaded.
"""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PAGE = Path(__file__).with_suffix(".md")

CONTENTS = {  # "ldm.room.*": all that the room's __init__ names
    "Pictures and latents": [
        "ldm.LatentSpace", "ldm.latents.Statistics", "ldm.roundtrip.RoundTrip", "ldm.roundtrip.psnr",
        "ldm.roundtrip.ssim", "ldm.tiling.Tiling", "ldm.precision.NonFiniteError", "ldm.images.to_pixels",
        "ldm.images.to_images", "ldm.images.load", "ldm.images.grid", "ldm.images.side_by_side",
        "ldm.images.error_map", "ldm.masks.to_mask",
    ],
    "Drawing": [
        "ldm.LatentDiffusion", "ldm.drawing.Drawing", "ldm.order.Settings", "ldm.save", "ldm.metadata.save_moving",
        "ldm.metadata.told",
    ],
    "Processes": [
        "ldm.Diffusion", "ldm.Bridge", "ldm.noising.LinearGaussian", "ldm.noising.Process", "ldm.noising.linear",
        "ldm.noising.scaled_linear", "ldm.noising.cosine", "ldm.noising.zero_terminal_snr", "ldm.bridging.symmetric",
    ],
    "Denoising and sampling": [
        "ldm.denoising.Denoiser", "ldm.denoising.Condition", "ldm.denoising.guided", "ldm.samplers.SAMPLERS",
        "ldm.samplers.times", "ldm.sampling.generators", "ldm.sampling.sample", "ldm.sampling.draw",
        "ldm.sampling.Start", "ldm.bridging.cross", "ldm.interpolating.slerp",
    ],
    "Text": ["ldm.text.TextEncoder", "ldm.text.Tokenizer", "ldm.prompts.parse"],
    "The autoencoder family": [
        "ldm.autoencoders.*", "ldm.autoencoders.base.Model", "ldm.autoencoders.priors.prior_of",
    ],
    "Data": [
        "ldm.data.*", "ldm.data.emoji.EmojiScenes", "ldm.data.degrading.degradation", "ldm.data.pairs.Degraded",
        "ldm.data.tensors.numbers", "ldm.data.tryon.TryOn", "ldm.data.tryon.outputs", "ldm.data.tryon.boxes.read",
        "ldm.data.tryon.boxes.covered",
    ],
    "Training": ["ldm.training.*", "ldm.training.vae.Recipe", "ldm.training.diffusion.Recipe"],
    "Virtual try-on": [
        "ldm.tryon.model.TryOnModel", "ldm.tryon.classifier.ErrorClassifier", "ldm.tryon.heat.heated",
    ],
    "Evaluation": [
        "ldm.evaluation.*", "ldm.evaluation.digits.recognised", "ldm.evaluation.portraits.portraits",
        "ldm.evaluation.portraits.reconstructions", "ldm.evaluation.portraits.samples",
        "ldm.evaluation.portraits.interpolation", "ldm.evaluation.portraits.traversal",
        "ldm.evaluation.portraits.undone", "ldm.evaluation.portraits.sequences", "ldm.evaluation.portraits.rollout",
        "ldm.evaluation.portraits.scatter", "ldm.evaluation.portraits.use",
    ],
    "Checkpoints": ["ldm.checkpoints.*"],
}  # fmt: skip

PREFACE = """\
# API

Made from the docstrings by `python docs/api.py`; the tests fail where it was not made anew. [README.md](../README.md)
shows how the names are used, the map in [ldm/\\_\\_init\\_\\_.py](../ldm/__init__.py) where they lie.

Shapes: B batch, C channels, H W height and width of pictures, h w of latents, f = H/h, L tokens, D features, T the last
time; `x` pixels in [-1,1], `z_0` clean latents, `z_t` noised ones, `z_T` the far end, `eps` noise from N(0, I). What a
user can get wrong is a ValueError, of checkpoints a CheckpointError, which is one, or a FileNotFoundError: one line
that names the value and what was expected. Names that begin with an underscore are nobody's business.
"""

Statement = ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


class Found(NamedTuple):
    """Where a name is defined."""

    file: Path
    node: Statement

    def lines(self, node: ast.stmt, end: int) -> str:
        """The source of a statement up to a line, without remarks to tools."""
        first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", []))])
        source = self.file.read_text(encoding="utf-8").splitlines()[first - 1 : end]
        return re.sub(r"  # (noqa|type: ignore|fmt).*", "", dedent("\n".join(source)))


def file_of(module: str) -> Path:
    """ "ldm.data" -> its file; FileNotFoundError for what is no module."""
    path = ROOT.joinpath(*module.split("."))
    return path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"


def assigned(node: ast.stmt) -> str:
    """The name that a statement gives a value to; "" where it gives none."""
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return targets[0].id if isinstance(targets[0], ast.Name) else ""


def values(module: str) -> dict[str, ast.expr]:
    """What stands in a module as NAME = value."""
    body = ast.parse(file_of(module).read_text(encoding="utf-8")).body
    return {assigned(node): node.value for node in body if isinstance(node, ast.Assign | ast.AnnAssign) and node.value}


def public(module: str) -> list[str]:
    """The names in a room's __all__."""
    found = values(module)
    named = found["__all__"]
    return sorted(ast.literal_eval(found["_HOMES"] if isinstance(named, ast.Call) else named))


def found(module: str, name: str) -> Found:
    """Where a name is defined that a module has, names, or loads when it is first used; KeyError for no such name."""
    homes = values(module).get("_HOMES")
    if homes is not None and name in (known := ast.literal_eval(homes)):
        return found(f"{module}.{known[name]}", name)
    for node in ast.parse(file_of(module).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return Found(file_of(module), node)
        if isinstance(node, ast.Assign | ast.AnnAssign) and assigned(node) == name:
            return Found(file_of(module), node)
        if isinstance(node, ast.ImportFrom) and name in [alias.asname or alias.name for alias in node.names]:
            return found(str(node.module), name)
    raise KeyError(f"{module} has no {name}")


def names() -> dict[str, list[str]]:
    """The contents with every room's names written out."""
    return {
        title: [
            full
            for entry in entries
            for full in ([f"{entry[:-2]}.{name}" for name in public(entry[:-2])] if entry.endswith("*") else [entry])
        ]
        for title, entries in CONTENTS.items()
    }


def signature(place: Found, node: ast.stmt) -> str:
    """The source of a definition up to its docstring; of a class its fields and its constructor too."""
    if not isinstance(node, ast.FunctionDef | ast.ClassDef):
        return place.lines(node, node.end_lineno or node.lineno)
    head = place.lines(node, node.body[0].lineno - 1).rstrip().removesuffix(":")
    if isinstance(node, ast.FunctionDef):
        return head
    inside = [one for one in node.body if isinstance(one, ast.AnnAssign) and not assigned(one).startswith("_")]
    parts = [place.lines(one, one.end_lineno or one.lineno) for one in inside]
    made = [one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
    parts += [place.lines(one, one.body[0].lineno - 1).strip().removesuffix(":") for one in made]
    body = "\n".join(parts).replace("\n", "\n    ")
    return f"{head}:\n    {body}" if parts else head


def markdown(docstring: str) -> Iterator[str]:
    """A docstring -> paragraphs: what is indented or set in columns, and what Python says, stays as it is."""
    for block in re.split(r"\n\n+", inspect.cleandoc(docstring)):
        if block.startswith(">>>"):
            yield f"```pycon\n{block}\n```"
        elif block.startswith("    ") or re.search(r"\S {3,}\S", block):
            yield f"```text\n{dedent(block)}\n```"
        else:
            pieces = re.split(r"(`[^`]*`)", " ".join(block.split()))
            yield "".join(piece if piece[:1] == "`" else re.sub(r"([*<\\])", r"\\\1", piece) for piece in pieces)


def entry(full: str) -> Iterator[str]:
    """A public name -> its paragraphs, and those of its methods that say something of their own."""
    module, _, name = full.rpartition(".")
    place = found(module, name)
    yield f"### {full}"
    yield f"```python\n{signature(place, place.node)}\n```"
    if isinstance(place.node, ast.FunctionDef | ast.ClassDef):
        yield from markdown(ast.get_docstring(place.node) or "")
    for node in place.node.body if isinstance(place.node, ast.ClassDef) else []:
        said = ast.get_docstring(node) if isinstance(node, ast.FunctionDef) else None
        if said and isinstance(node, ast.FunctionDef) and (node.name == "__call__" or not node.name.startswith("_")):
            yield f"#### {name}.{node.name.replace('__', chr(92) + '_' + chr(92) + '_')}"
            yield f"```python\n{signature(place, node)}\n```"
            yield from markdown(said)
    file = place.file.relative_to(ROOT).as_posix()
    yield f"In [`{file}`](../{file})."


def anchor(title: str) -> str:
    """A heading -> what GitHub calls it in links."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def links(own: list[str]) -> list[str]:
    """Names -> links to their headings, each as short as tells it from the others."""
    last = [full.rpartition(".")[2] for full in own]
    shown = [".".join(full.split(".")[-2:]) if last.count(name) > 1 else name for full, name in zip(own, last)]
    return [f"[{name}](#{anchor(full)})" for name, full in zip(shown, own)]


def page() -> str:
    """docs/api.md."""
    parts = [PREFACE.strip()]
    listed = names()
    parts.append("\n".join(f"- [{title}](#{anchor(title)}): {', '.join(links(own))}" for title, own in listed.items()))
    for title, own in listed.items():
        parts += [f"## {title}", *(part for full in own for part in entry(full))]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
