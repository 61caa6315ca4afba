"""How fast, and in how much memory? Ours beside other programs, on one machine, from the same weights.

start.py         whole commands, from nothing to a picture; imports
drawing.py       pictures by each engine
network.py       one evaluation of a U-Net
training.py      a diffusion model's training, beside diffusers' script
autoencoders.py  autoencoders' training, beside pythae
scale.py         many pictures, in batches and by several processes

processes.py     programs, measured from outside
turns.py         rounds, ratios, agreement
shapes.py        models of published shapes with random weights
report.py        a table and a plot of what was measured
"""
