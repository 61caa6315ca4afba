"""A part's config and tensors -> the module, in eval mode and float32; every tensor fits or one line says which not."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ldm.checkpoints.contents import Contents
from ldm.checkpoints.faults import CheckpointError, named, some

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ldm.text import TextEncoder, Tokenizer


REGISTERED: "dict[str, Callable[[dict[str, Any]], nn.Module]]" = {}  # `_class_name` of a config -> what makes it


def module_of(contents: Contents, part: str) -> Any:
    """The vae, unet or text_encoder of a checkpoint. CheckpointError names what does not fit; see `check`."""
    where, module = contents.where.get(part, part), frame(contents, part)
    check({name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}, contents.tensors[part], where)
    tensors = {name: finite(tensor.float(), name, where) for name, tensor in contents.tensors[part].items()}
    module.load_state_dict(tensors, assign=True)
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
    from accelerate.big_modeling import init_empty_weights

    with named(contents.where.get(part, part)), quiet(), init_empty_weights(include_buffers=False):
        return _made(part, dict(contents.configs[part]))


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
        raise CheckpointError(f"{name}: expected one of {', '.join([others, *sorted(REGISTERED)])}")
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
