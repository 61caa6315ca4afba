"""Files of `ldm bench` -> a table in Markdown, and a plot of how many times as fast as the peer each way is."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ldm.evaluation.speed.turns import PEER

TICKS = (0.5, 1, 1.5, 2, 3, 5, 10, 20, 50, 100, 200, 500)


class Bar(NamedTuple):
    """A way of one bench: seconds and ratio, medians; the least and the greatest ratio of a round."""

    bench: str
    name: str
    seconds: float
    ratio: float
    least: float
    greatest: float
    agrees: str


def bars(found: Sequence[Mapping[str, Any]]) -> list[Bar]:
    """What benches found -> their ways, without the peers. ValueError where it is none of theirs."""
    made = []
    for bench in found:
        if "rows" not in bench or "what" not in bench:
            raise ValueError("expected what ldm bench start, drawing or network wrote")
        ways = {**bench["rows"], **bench.get("imports", {})}
        for name, row in ways.items():
            if name not in (PEER, f"import {PEER}"):
                rounds = row["ratio"]["rounds"]
                made.append(Bar(bench["what"], name, row["seconds"]["median"], row["ratio"]["median"], min(rounds),
                                max(rounds), _agreement(row)))  # fmt: skip
    return made


def _agreement(row: Mapping[str, Any]) -> str:
    if "levels" in row:
        return f"{row['levels']} of 255" + (f", {row['psnr']} dB" if row["levels"] > 1 and "psnr" in row else "")
    return f"{row['off']:.2g}" if "off" in row else ""


def markdown(made: Sequence[Bar]) -> str:
    """A table, a bench after the other."""
    lines = ["| | seconds | times as fast | of rounds | largest difference |", "|---|---:|---:|---:|---:|"]
    for i, bar in enumerate(made):
        if not i or made[i - 1].bench != bar.bench:
            lines.append(f"| **{bar.bench}** | | | | |")
        spread = f"{bar.least:.2f} to {bar.greatest:.2f}"
        lines.append(f"| {bar.name} | {bar.seconds:.3g} | **{bar.ratio:.3g}** | {spread} | {bar.agrees} |")
    return "\n".join(lines)


def plot(made: Sequence[Bar], path: Path) -> None:
    """Ratios as bars on a logarithmic axis, 1 is the peer; whiskers from the least to the greatest round."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 0.45 * len(made) + 1.2), layout="constrained")
    rows = range(len(made))
    whiskers = [[bar.ratio - bar.least for bar in made], [bar.greatest - bar.ratio for bar in made]]
    benches = list(dict.fromkeys(bar.bench for bar in made))
    colours = [f"C{benches.index(bar.bench)}" for bar in made]
    axes.barh(rows, [bar.ratio - 1 for bar in made], left=1, xerr=whiskers, color=colours, height=0.6)
    axes.set_yticks(rows, [bar.name for bar in made])
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    highest = 1.3 * max(bar.ratio for bar in made)
    ticks = [tick for tick in TICKS if tick <= highest]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel(f"times as fast as {PEER}")
    handles = [plt.Rectangle((0, 0), 1, 1, color=f"C{i}") for i in range(len(benches))]
    figure.legend(handles, benches, loc="outside lower left", frameon=False, fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)
