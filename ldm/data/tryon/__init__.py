"""Virtual try-on: folders in VITON-HD's or DressCode's layout -> looks.

pairs list --viton, dresscode--> Files --look--> Look (person, garment, masks, pose, parse, all of one size)
JSON of boxes --boxes--> where a picture has errors

looks.py      TryOn, the dataset; what another program drew for it; a sheet to look at
look.py       Look, and its parts as they are read, or made where a set has none
viton.py      where VITON-HD keeps them;  dresscode.py: where DressCode does
places.py     folders and files under any of the names that they have
synthetic.py  pairs whose garments were made, and a set of them
written.py    what is written of a set: lists of pairs, JSON
parsing.py    what the numbers of a parse map stand for
pose.py       key points, and the skeleton that they draw
agnostic.py   the region that is to be drawn anew
garment.py    a garment on white -> its mask
boxes.py      boxes around errors
"""

from ldm.data.tryon.look import Look
from ldm.data.tryon.looks import TryOn, outputs, sheet

__all__ = ["Look", "TryOn", "outputs", "sheet"]
