"""OpenVINO: a network on disk -> arrays in, array out, on the CPU; compiled for each shape that it meets, and kept.

    network.xml, network.bin --read, reshape, compile--> blob --infer--> array

What is compiled belongs to one version of OpenVINO and one processor, and is kept under their names.
"""

import hashlib
import logging
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import numpy as np

from ldm.engines.kept import keep, kept, seal, whole

log = logging.getLogger("ldm")

SETTINGS = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}


@cache
def runtime() -> ModuleType:
    """OpenVINO, which otherwise would tell a server of its import. ModuleNotFoundError where it is not installed."""
    if "openvino" not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


class Network:
    """A network of arrays; each in its own shape, which may change from call to call.

    `path` is that of the .xml, the weights lie beside it; `remake` writes both again where they are damaged.
    """

    def __init__(self, path: Path, remake: Callable[[], object]):
        self.path, self.remake = path, remake
        self.compiled: dict[Any, Any] = {}

    def __call__(self, *arrays: np.ndarray) -> np.ndarray:
        """Arrays in the order of the network's inputs -> its output."""
        shapes = tuple(array.shape for array in arrays)
        if shapes not in self.compiled:
            self.compiled[shapes] = self._compile(shapes)
        return self.compiled[shapes](list(arrays))[0]

    def _compile(self, shapes: Any) -> Any:
        blob = self.path.with_name(f"{self.path.stem}-{self._key(shapes)}.blob")
        if (content := kept(blob)) is not None:
            try:
                return core().import_model(content, "CPU", settings())
            except RuntimeError:
                pass  # another version's, or another processor's
        model, shape = self.read(), runtime().PartialShape
        model.reshape({i: shape(list(sides)) for i, sides in enumerate(shapes)})
        found = core().compile_model(model, "CPU", settings())
        keep(blob, found.export_model().getvalue())
        return found

    def read(self) -> Any:
        """The network as it is on disk, of any shape."""
        if not all(whole(path) for path in (self.path, self.path.with_suffix(".bin"))):
            log.warning("%s is damaged, or not all there: prepared again", self.path)
            self.remake()
        return core().read_model(self.path)

    def _key(self, shapes: Any) -> str:
        """What compiling depends on, in ten digits: shapes, settings, weights, OpenVINO and the processor."""
        device = core().get_property("CPU", "FULL_DEVICE_NAME")
        seal = self.path.with_name(f"{self.path.with_suffix('.bin').name}.crc32")
        weights = seal.read_bytes() if seal.is_file() else b""
        told = [shapes, settings(), weights, runtime().get_version(), device]
        return hashlib.sha256(repr(told).encode()).hexdigest()[:10]


def save(model: Any, path: Path) -> None:
    """A network -> path (.xml) and its weights (.bin), sealed. ValueError where it cannot be written."""
    try:
        with TemporaryDirectory(dir=path.parent) as folder:
            runtime().save_model(model, f"{folder}/{path.name}", compress_to_fp16=False)  # half would change time
            for ending in (".bin", ".xml"):
                (Path(folder) / path.name).with_suffix(ending).replace(path.with_suffix(ending))
                seal(path.with_suffix(ending))
    except (RuntimeError, OSError) as error:
        raise ValueError(f"{path}: cannot be written: {' '.join(str(error).split())}") from error


@cache
def core() -> Any:
    """What reads and compiles. Files are read, not mapped: one that is cut while it is mapped ends the process."""
    found = runtime().Core()
    found.set_property({"ENABLE_MMAP": False})
    return found


def settings() -> dict[str, Any]:
    """How networks are compiled: in float32, for one call at a time, on as many threads as OMP_NUM_THREADS says.

    Where it says so others may run beside this process: bound to cores, all of them would share the first.
    """
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if not (threads.isdigit() and int(threads)):
        return SETTINGS
    return SETTINGS | {"INFERENCE_NUM_THREADS": int(threads), "ENABLE_CPU_PINNING": False}
