"""Emoji scenes: a structure -> a picture and its captions, drawn from the sprite sheet.

Scene --caption(rng)--> "two purple cats in the snow"
      --place(rng)----> what stands where --paint(placed, side)--> RGB picture
      --key-----------> the one name of the scene, whichever words describe it

vocabulary.py    what there is to draw, what people call it, and the colours; vocabulary.txt: the list
scene.py         the structure; its key, which of it is held out of training, where its objects stand
captions.py      a scene in the words that people would type
painting.py      sprites, painted and scaled, on their ground
settings.py      grass, beach, snow ...: the grounds that are more than a colour
splits.py        random scenes by their kinds and shares; what a scene could be mistaken for
"""

from ldm.data.scenes.scene import Placed, Scene
from ldm.data.scenes.splits import KINDS, random_scene, split_scene, variants
from ldm.data.scenes.vocabulary import COLOURS, TINTS, vocabulary

__all__ = ["COLOURS", "KINDS", "TINTS", "Placed", "Scene", "random_scene", "split_scene", "variants", "vocabulary"]
