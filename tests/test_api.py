"""The public names: every one says what it is, its examples are true, and docs/api.md is made of them."""

import doctest
import importlib
import inspect
import json
import re
import runpy
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from types import FunctionType

import pytest

ROOT = Path(__file__).parent.parent
API = runpy.run_path(str(ROOT / "docs" / "api.py"))
ROOMS = ("ldm", "ldm.autoencoders", "ldm.checkpoints", "ldm.data", "ldm.evaluation", "ldm.training")
PROMISED = """
    LatentSpace.from_pretrained LatentSpace.encode LatentSpace.decode LatentSpace.to_pixels LatentSpace.from_pixels
    LatentSpace.posterior LatentSpace.roundtrip LatentSpace.save_pretrained LatentDiffusion.from_pretrained
    LatentDiffusion.text_to_image LatentDiffusion.image_to_image LatentDiffusion.inpaint LatentDiffusion.interpolate
    LatentDiffusion.reconstruct LatentDiffusion.refine LatentDiffusion.save_pretrained Drawing.to ldm.save
    ldm.Diffusion ldm.Bridge ldm.autoencoders.AE ldm.autoencoders.DenoisingAE ldm.autoencoders.SparseAE
    ldm.autoencoders.ContractiveAE ldm.autoencoders.VAE ldm.autoencoders.BetaVAE ldm.autoencoders.ConditionalVAE
    ldm.autoencoders.VQVAE ldm.autoencoders.VQVAE2 ldm.autoencoders.SequentialVAE ldm.autoencoders.TDVAE
    ldm.training.train_diffusion
""".split()  # what others rely on
TAUGHT = sorted(path for path in (ROOT / "ldm").rglob("*.py") if ">>> " in path.read_text(encoding="utf-8"))
SAYING = (FunctionType, property, classmethod, staticmethod, cached_property)
NAMES = sorted({full for own in API["names"]().values() for full in own})


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_the_page_is_made_from_the_docstrings_as_they_are():
    assert (ROOT / "docs" / "api.md").read_text(encoding="utf-8") == API["page"](), "run: python docs/api.py"


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_stands_on_the_page(room):
    module = importlib.import_module(room)
    assert module.__all__ and {f"{room}.{name}" for name in module.__all__} <= set(NAMES)


def test_what_others_rely_on_stands_on_the_page():
    headings = set(re.findall(r"^###+ (.*)$", API["page"](), re.M))
    assert not set(PROMISED) - headings


def taught() -> Iterator[object]:
    """All that the notebooks take from the package, modules by what is taken from them."""
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        for module, names in re.findall(r"^from (ldm[\w.]*) import (\([^)]*\)|[^\n]*)", code, re.M):
            for name in re.findall(r"\w+", names):
                found = getattr(importlib.import_module(module), name, None)
                found = importlib.import_module(f"{module}.{name}") if found is None else found
                inside = re.findall(rf"\b{name}\.(\w+)", code) if inspect.ismodule(found) else []
                yield from [getattr(found, part) for part in inside if hasattr(found, part)] or [found]


def test_what_the_course_uses_stands_on_the_page():
    known = [getattr(importlib.import_module(full.rpartition(".")[0]), full.rpartition(".")[2]) for full in NAMES]
    used = [one for one in taught() if not inspect.ismodule(one)]
    assert len(used) > 20 and not [one for one in used if not any(one is other for other in known)]


def test_links_on_the_page_lead_somewhere():
    page = API["page"]()
    headings = {API["anchor"](heading) for heading in re.findall(r"^##+ (.*)$", page, re.M)}
    links = re.findall(r"\]\(([^)]+)\)", page)
    assert {link[1:] for link in links if link[0] == "#"} <= headings
    assert all((ROOT / "docs" / link).exists() for link in links if link[0] != "#")


def parts(found: type) -> dict[str, object]:
    """The public methods and properties of a class, those of its bases here among them."""
    own = {key for base in found.__mro__ if base.__module__.startswith("ldm") for key in vars(base)}
    return {
        key: getattr(found, key)
        for key in own
        if not key.startswith("_") and isinstance(inspect.getattr_static(found, key), SAYING)
    }


@pytest.mark.parametrize("full", NAMES)
def test_a_public_name_and_its_parts_say_what_they_are(full):
    module, _, name = full.rpartition(".")
    found = getattr(importlib.import_module(module), name)
    if inspect.isclass(found) or inspect.isroutine(found):  # not a constant, which a remark explains
        said = {name: found, **(parts(found) if inspect.isclass(found) else {})}
        sentences = {part: (inspect.getdoc(value) or "").split("\n\n")[0] for part, value in said.items()}
        assert not {part: text for part, text in sentences.items() if not re.search(r"[.:]$", text)}


@pytest.mark.parametrize("path", TAUGHT, ids=module_of)
def test_examples_in_docstrings_are_true(path):
    ran = doctest.testmod(importlib.import_module(module_of(path)))
    assert ran.attempted and not ran.failed


def test_there_are_examples_of_the_main_names():
    assert {"ldm.latents", "ldm.pipeline", "ldm.noising", "ldm.bridging"} <= {module_of(path) for path in TAUGHT}
