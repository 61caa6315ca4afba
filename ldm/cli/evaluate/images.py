"""ldm evaluate images: what was drawn beside what is true, in figures."""

from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer

from ldm.cli import options


def images(
    generated: Annotated[Path, typer.Argument(metavar="GENERATED", help="A folder of pictures that were drawn.")],
    reference: Annotated[Path, typer.Argument(metavar="REFERENCE", help="A folder of true pictures.")],
    metric: Annotated[
        list[str] | None,
        typer.Option(help="One of these figures, by name; may be repeated.  [default: all that can be given]"),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            help="What sets are compared by: inception, clip, or an autoencoder's name, folder or file. "
            " [default: inception where its weights are at hand, else emoji]"
        ),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="A folder with Inception's and LPIPS's weights (see weights.md).")
    ] = None,
    clip: Annotated[Path | None, typer.Option(help="A folder with a CLIP model, as transformers writes it.")] = None,
    seed: Annotated[int, typer.Option(help="Of the intervals, and of kid.")] = 0,
    json: options.Json = None,
    device: options.Device = "auto",
) -> None:
    """How good are drawn pictures? Figures with 95 % intervals, from weights that are at hand: none are fetched.

    Of the sets: fid, kid, precision, recall; by other features than Inception's frechet and kernel in place of the
    first two. Of the pairs, pictures of one size and of one path in their folders but for the suffix: psnr (of those
    that are not equal; how many are is said), ssim, lpips. Of the pictures with a prompt in their metadata, or with
    captions: clip_score. What cannot be given is left out and said, and is an error where --metric asks for it.

    An interval says where the mean figure of sets as large as this one, by the same model, lies (recall's: of as many
    other true pictures, beside these drawn ones); one other set's own figure may be 1.4 times as far away. It does not
    say that fid is too high where pictures are few: compare sets of one size alone.

    **Examples**

    ldm evaluate images drawn/ photographs/

    ldm evaluate images drawn/ photographs/ --metric fid --metric kid --weights weights/ --json fid.json

    ldm evaluate images drawn/ photographs/ --metric clip_score --clip clip-vit-large-patch14/

    ldm evaluate images drawn/ photographs/ --features emoji
    """
    options.json_target(json)

    from ldm.evaluation.images import evaluate_images, table

    found = evaluate_images(
        generated, reference, metric or None, features, weights, clip, seed, options.device_of(device)
    )
    if str(json) != "-":
        told = found["settings"]
        print(
            f"{told['generated']} drawn, {told['reference']} true pictures; sets by the features of {told['features']}"
        )
        print(table(found))
        for reason, names in groupby(found["left_out"].items(), lambda item: item[1]):
            print(f"left out: {', '.join(name for name, _ in names)}: {reason}")
        for reason, those in _pairs_left_out(found).items():
            print(f"pairs left out: {', '.join(those)}: {reason}")
    options.write_json(json, found)


def _pairs_left_out(found: dict[str, Any]) -> dict[str, list[str]]:
    """The first reason that each figure left a pair out for, with the names of those figures."""
    reasons = dict[str, list[str]]()
    for name, figure in found["figures"].items():
        if figure.get("left_out"):
            first = next(row["left_out"][name] for row in found["pictures"] if name in row.get("left_out", {}))
            more = f", and {figure['left_out'] - 1} more" if figure["left_out"] > 1 else ""
            reasons.setdefault(first + more, []).append(name)
    return reasons
