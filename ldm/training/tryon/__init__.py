"""Training for virtual try-on, stage by stage; `stages.train_tryon` runs them all.

looks.py        looks in memory, as tensors
warping.py      a garment as it is worn, and, the other way round, as a shop shows it
base.py         the base model: a latent diffusion with concatenated conditions
refinement.py   what bridges learn from: what a base model drew, and maps of what is wrong with it
extraction.py   H2G: garments taken off photographs, the good ones kept as synthetic pairs
matching.py     which garment a person wears: what pictures are judged by
stages.py       one after the other
"""
