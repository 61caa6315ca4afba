"""Damaged files against every loader: each is read, or refused in one line that names it.

loader's whole files --hypothesis--> Case (file, steps) --damaged--> folder --loader, under limits--> Outcome

steps.py      content -> damaged content: bits, blocks, numbers, text, JSON
shells.py     what is packed or summed: damaged inside, and closed again so that a reader comes to see it
loaders.py    every function that opens what a user gives, and whole files for it
cases.py      which damage, drawn by hypothesis; each case has a number by which it comes again
limits.py     time and memory that one file may take
trying.py     a case -> what its loader made of it, and what it left behind
working.py    many cases in a process of their own, which may hang or die
"""
