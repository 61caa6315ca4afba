"""Paper dolls: drawn people in drawn garments, for virtual try-on without anybody's photographs.

    (seed, i) --figure, garments--> who, what --painting--> person, label map, product view
                                              --errors----> the person as a base model could have drawn it, boxes

figure.py     a body and its pose; the frame that a garment hangs on
pose.py       its key points, and OpenPose's file of them
garments.py   cuts, patterns, letters; the cloth that they are made of
canvas.py     picture and labels drawn at once, shaded; cloth warped to where it is seen
painting.py   the product view, and the person who wears it
parsing.py    the numbers of label maps
errors.py     what a base model gets wrong, with its true boxes
people.py     all of that for person i
writing.py    a folder of them in VITON-HD's layout
"""

from ldm.data.dolls.people import Doll, doll, worn
from ldm.data.dolls.writing import write

__all__ = ["Doll", "doll", "worn", "write"]
