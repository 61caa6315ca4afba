"""Virtual try-on: a person in another garment, and where a picture of it is wrong.

classifier.py   a picture and its garment -> the error map M, 1 where the picture is wrong
heat.py         an error map -> a picture of it
"""
