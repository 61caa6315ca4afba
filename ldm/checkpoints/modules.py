"""A part's config and tensors -> the module, in eval mode and float32; every tensor fits or one line says which not.

A config that a file brings along is believed in nothing that costs time or memory: see `empty`.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ldm.checkpoints.contents import Contents
from ldm.checkpoints.faults import CheckpointError, named, some

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ldm.text import TextEncoder, Tokenizer


LARGEST = 1_000_000  # of the whole numbers in a config, which are sizes: no network that is read here has such a one
MOST = 5_000  # tensors of a network; Stable Diffusion's have up to 686
REGISTERED: "dict[str, Callable[[dict[str, Any]], nn.Module]]" = {}  # `_class_name` of a config -> what makes it


def module_of(contents: Contents, part: str) -> Any:
    """The vae, unet or text_encoder of a checkpoint. CheckpointError names what does not fit; see `check`."""
    return filled(frame(contents, part), contents.tensors[part], contents.where.get(part, part))


def filled(module: Any, tensors: "Mapping[str, Tensor]", where: str) -> Any:
    """A module and its tensors, every one of them finite -> the module with these, in eval mode."""
    check({name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}, tensors, where)
    found = {name: finite(tensor.float(), name, where) for name, tensor in tensors.items()}
    module.load_state_dict(found, assign=True)
    return module.eval()


def check_all(contents: Contents) -> None:
    """CheckpointError or FileNotFoundError for what would not load, without loading it."""
    for part, tensors in contents.tensors.items():
        where, module = contents.where.get(part, part), frame(contents, part)
        check({name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}, tensors, where)
        for name, tensor in tensors.items():
            finite(tensor.float(), name, where)
    if "text_encoder" in contents.tensors:
        tokenizer_of(contents)


def text_of(contents: Contents) -> "TextEncoder | None":
    """The text encoder with its tokenizer; None for a model without text."""
    if "text_encoder" not in contents.tensors:
        return None
    from ldm.text import TextEncoder

    model, tokenizer = module_of(contents, "text_encoder"), tokenizer_of(contents)
    last, entries = max(tokenizer.vocabulary.values()), model.config.vocab_size
    if last >= entries:
        where = contents.where.get("text_encoder", "text_encoder")
        raise CheckpointError(f"{where}: the tokenizer has ids up to {last}; the encoder knows {entries}")
    tokenizer.length = min(tokenizer.length, model.config.max_position_embeddings)
    return TextEncoder(model, tokenizer)


def tokenizer_of(contents: Contents) -> "Tokenizer":
    """The tokenizer of a checkpoint with text; FileNotFoundError says what to put where if none was found."""
    if contents.tokenizer is None:
        raise FileNotFoundError(contents.where["tokenizer"])
    return contents.tokenizer


def frame(contents: Contents, part: str) -> Any:
    """A part's module without numbers: its parameters have names and shapes only."""
    config, where = dict(contents.configs[part]), contents.where.get(part, part)
    with named(where), quiet(), empty(config):
        if part == "vae":
            _check_scales(config)
        return _made(part, config)


@contextmanager
def empty(config: Mapping[str, Any]) -> Iterator[None]:
    """Modules that are made within it have no numbers. ValueError for a config that no network of any use has.

    Else a byte of damage could ask for a billion layers, which take hours to make.
    """
    from accelerate.big_modeling import init_empty_weights
    from torch import nn

    if large := [(name, size) for name, value in config.items() for size in _sizes(value) if abs(size) > LARGEST]:
        raise ValueError(f"{large[0][0]} {str(large[0][1])[:20]} in its config: expected at most {LARGEST:,}")
    with init_empty_weights(include_buffers=False):
        base: Any = nn.Module
        register, count = base.register_parameter, iter(range(MOST))

        def counted(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
            if parameter is not None and next(count, None) is None:
                raise ValueError(f"its config asks for more than {MOST:,} tensors")
            register(module, name, parameter)

        base.register_parameter = counted
        try:
            yield
        finally:
            base.register_parameter = register


def _sizes(value: Any) -> Iterator[int]:
    """The whole numbers in a config, at any depth."""
    if isinstance(value, int):
        yield value
    for member in value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ():
        yield from _sizes(member)


def _check_scales(config: Mapping[str, Any]) -> None:
    """ValueError where an autoencoder's config names a scale or a shift that is no finite number, or one a channel."""
    for name in ("scaling_factor", "shift_factor", "latents_mean", "latents_std"):
        value = config.get(name)
        row = value if isinstance(value, list) and name.startswith("latents") else [value]
        if value is not None and not all(_is_number(number) for number in row):
            raise ValueError(f"{name} {str(value)[:60]} in its config: expected finite numbers")
        if isinstance(value, list) and len(value) != config.get("latent_channels", len(value)):
            raise ValueError(f"{name} of {len(value)} numbers in its config for {config['latent_channels']} channels")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _made(part: str, config: dict[str, Any]) -> "nn.Module":
    if part == "text_encoder":
        from transformers import CLIPTextConfig, CLIPTextModel

        config = {key: value for key, value in config.get("text_config", config).items() if key != "torch_dtype"}
        return CLIPTextModel(CLIPTextConfig.from_dict(config))
    name = config.get("_class_name")
    if part == "vae":
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        if name in (None, "AutoencoderKL"):
            return AutoencoderKL.from_config(config)
        return _own("ldm.autoencoders", name, "AutoencoderKL")(config)
    if name == "UNet2DModel":
        from diffusers.models.unets.unet_2d import UNet2DModel

        return UNet2DModel.from_config(config)
    if name in (None, "UNet2DConditionModel"):
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        return UNet2DConditionModel.from_config(config)
    return _own("ldm.vectors", name, "UNet2DConditionModel, UNet2DModel")(config)


def _own(room: str, name: str, others: str) -> "Callable[[dict[str, Any]], nn.Module]":
    """What makes one of the package's own modules, which its room registers; by name, as no arrow points up."""
    import_module(room)
    if name not in REGISTERED:
        raise ValueError(f"{name}: expected one of {', '.join([others, *sorted(REGISTERED)])}")
    return REGISTERED[name]


def check(expected: Mapping[str, tuple[int, ...]], tensors: "Mapping[str, Tensor]", where: str) -> None:
    """CheckpointError for the first tensor whose shape contradicts the config, for those missing, and for those over.

    A partial match is never loaded.
    """
    for name in sorted(expected.keys() & tensors.keys()):
        if tuple(tensors[name].shape) != expected[name]:
            found = tuple(tensors[name].shape)
            raise CheckpointError(f"{where}: {name} has the shape {found}, its config asks for {expected[name]}")
    missing, over = expected.keys() - tensors.keys(), tensors.keys() - expected.keys()
    if missing:
        raise CheckpointError(f"{where} lacks {len(missing)} of {len(expected)} tensors: {some(missing)}")
    if over:
        raise CheckpointError(f"{where} holds {len(over)} tensors that its config has no place for: {some(over)}")


def finite(tensor: "Tensor", name: str, where: str) -> "Tensor":
    """The tensor itself; CheckpointError if it holds NaN or infinite values."""
    if not tensor.sum().isfinite() and not tensor.isfinite().all():  # the sum is quick, but may overflow
        raise CheckpointError(f"{where}: {name} holds NaN or infinite values")
    return tensor


@contextmanager
def quiet() -> Iterator[None]:
    """Silences the libraries' progress bars and advice while a model loads."""
    import logging

    from transformers.utils import logging as transformers_logging

    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    levels = [logger.level for logger in loggers]
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if shown:
            transformers_logging.enable_progress_bar()
