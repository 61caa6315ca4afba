"""Every function that opens what a user gives, each with whole files that it reads: what is damaged is one of these.

loader.py     what a loader is, their list, and what they share
pictures.py   pictures, masks, and what a picture's file says
models.py     models, whole and in parts, in every layout
added.py      what is added to a model: LoRAs, words, tokenizers
judges.py     networks that pictures are judged by
data.py       pictures and captions to learn from, boxes, files of prompts
kept.py       what training, engines and benches keep
"""

from fuzzing.loaders import added, data, judges, kept, models, pictures  # noqa: F401  each adds its own
from fuzzing.loaders.loader import LOADERS, Loader, folder_of

__all__ = ["LOADERS", "Loader", "folder_of"]
