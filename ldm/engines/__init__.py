"""Engines: how a network is run. Torch runs all of them; OpenVINO some, faster on a CPU and without importing torch.

    model --preparing, once--> networks on disk --openvino, compiled for a shape--> arrays -> array
    words --swift--> pictures, in NumPy and OpenVINO alone

preparing.py  a model -> its networks as OpenVINO reads them
openvino.py   such a network, compiled and run
kept.py       files that are made once, and made again where they are damaged
noise.py      the normal numbers of torch's CPU generator, by NumPy: a seed means the same picture in every engine
swift.py      text to image without torch
quantizing.py a U-Net in int8, by what it meets on real trajectories
network.py    such a network in a torch U-Net's place
tuned.py      torch, as this machine runs a U-Net fastest
probing.py    in which number format and layout that is

Nothing above knows which engine draws: `LatentDiffusion.from_pretrained(..., engine="openvino")` takes a network for a
U-Net, and `SwiftDiffusion` answers `text_to_image`.
"""

ENGINES = ("torch", "tuned", "openvino", "openvino-int8")
