"""Training: one loop, one objective for each kind of model, checkpoints that resume exactly.

data --order, by (seed, epoch)--> batches --objective(batch, generators)--> loss parts --step--> weights, their EMA
"""

import importlib

_HOMES = {
    "train_vae": "vae",
    "train_autoencoder": "autoencoder",
    "train_diffusion": "diffusion",
    "train_distill": "distill",
    "Distillation": "distill",
    "train_bridge": "bridge",
    "train_error_classifier": "error_classifier",
    "train_tryon": "tryon.stages",
    "Plan": "plan",
    "fit": "loop",
}
__all__ = list(_HOMES)


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(f"ldm.training.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'ldm.training' has no attribute {name!r}")
