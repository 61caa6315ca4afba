"""A prompt -> its words and their weights: the syntax of AUTOMATIC1111's web UI.

    (word) x 1.1   ((word)) x 1.21   [word] / 1.1   (word:1.3) x 1.3   \\( \\) \\[ \\] \\\\ literal   BREAK next chunk

As there, a bracket that is never closed closes at the prompt's end, one that was never opened is literal, and so is
what follows a colon but is no number, as in (word:much). Unlike there, BREAK breaks inside brackets too, sections
without words vanish, and a backslash before anything but a bracket or a backslash stays.
"""

import re
from typing import NamedTuple

ROUND, SQUARE = 1.1, 1 / 1.1
SYNTAX = re.compile(
    r"\\(?P<escaped>[\\()\[\]])"
    r"|(?P<opening>[(\[])"
    r"|:\s*(?P<weight>[+-]?(?:\d{1,9}(?:\.\d*)?|\.\d+))\s*\)"
    r"|(?P<closing>[)\]])"
    r"|(?P<BREAK>\s*\bBREAK\b\s*)"
)


class Fragment(NamedTuple):
    """Literal text and the weight of its tokens, 1 where nothing was said."""

    text: str
    weight: float


Section = list[Fragment]  # what stands between two BREAKs; neighbours differ in weight


def parse(prompt: str) -> list[Section]:
    """Prompt -> its sections, at least one: [[Fragment("", 1.0)]] where there are no words.

    >>> for text, weight in parse("a (red:1.3) apple")[0]:
    ...     print(repr(text), weight)
    'a ' 1.0
    'red' 1.3
    ' apple' 1.0
    """
    scanner = _Scanner()
    end = 0
    for match in SYNTAX.finditer(prompt):
        scanner.literal(prompt[end : match.start()])
        scanner.syntax(match)
        end = match.end()
    scanner.literal(prompt[end:])
    return scanner.sections() or [[Fragment("", 1.0)]]


class _Scanner:
    """The fragments so far, None for a BREAK, and where the brackets that are still open began."""

    def __init__(self) -> None:
        self.pieces: list[Fragment | None] = []
        self.open: dict[str, list[int]] = {"(": [], "[": []}

    def literal(self, text: str) -> None:
        self.pieces.append(Fragment(text, 1.0))

    def syntax(self, match: re.Match[str]) -> None:
        if match["BREAK"]:
            self.pieces.append(None)
        elif match["opening"]:
            self.open[match["opening"]].append(len(self.pieces))
        elif match["weight"] and self.open["("]:
            self.scale(self.open["("].pop(), float(match["weight"]))
        elif match["closing"] == ")" and self.open["("]:
            self.scale(self.open["("].pop(), ROUND)
        elif match["closing"] == "]" and self.open["["]:
            self.scale(self.open["["].pop(), SQUARE)
        else:
            self.literal(match["escaped"] or match[0])

    def scale(self, start: int, factor: float) -> None:
        """Multiplies the weights of everything since `start`."""
        self.pieces[start:] = [piece and Fragment(piece.text, piece.weight * factor) for piece in self.pieces[start:]]

    def sections(self) -> list[Section]:
        """Closes what is open, splits at the BREAKs, joins neighbours of one weight."""
        for start in self.open["("]:
            self.scale(start, ROUND)
        for start in self.open["["]:
            self.scale(start, SQUARE)
        sections: list[Section] = [[]]
        for piece in self.pieces:
            if piece is None:
                sections.append([])
            elif sections[-1] and sections[-1][-1].weight == piece.weight:
                sections[-1][-1] = Fragment(sections[-1][-1].text + piece.text, piece.weight)
            elif piece.text:
                sections[-1].append(piece)
        return [section for section in sections if section]
