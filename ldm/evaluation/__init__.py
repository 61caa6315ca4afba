"""Evaluation: what a model is worth, in figures. Each function returns plain values that json can write."""

import importlib

_HOMES = {
    "evaluate_prompts": "prompts",
    "evaluate_roundtrip": "roundtrip",
    "Report": "report",
    "evaluate_nearest": "nearest",
    "evaluate_images": "images",
    "evaluate_autoencoder": "autoencoders",
    "evaluate_error_maps": "error_maps",
    "evaluate_tryon": "tryon",
    "compare_training": "speed.training",
    "compare_autoencoders": "speed.autoencoders",
}
__all__ = list(_HOMES)


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(f"ldm.evaluation.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'ldm.evaluation' has no attribute {name!r}")
