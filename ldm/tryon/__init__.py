"""Virtual try-on: a person in another garment, where a picture of it is wrong, and its repair (EARSB, 2501.04666).

given.py        what is told: garment, person without it, pose; and how it stands beside z_t
warping.py      a garment as it is worn, and, the other way round, as a shop shows it (H2G)
classifier.py   a picture and its garment -> the error map M, 1 where the picture is wrong
steering.py     away from what the classifier would call wrong, while a bridge is crossed
experts.py      two networks for one bridge, one for either half of all times
model.py        all of it joined: garment -> worn -> drawn -> map -> repaired
matching.py     which garment does a person wear: what pictures are judged by
heat.py         an error map -> a picture of it
"""
