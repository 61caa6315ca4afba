"""ldm evaluate: is it any good?"""

import typer

from ldm.cli.evaluate.autoencoder import autoencoder
from ldm.cli.evaluate.images import images
from ldm.cli.evaluate.prompts import nearest, prompts
from ldm.cli.evaluate.roundtrip import roundtrip
from ldm.cli.evaluate.tryon import tryon

app = typer.Typer(help="Quality: does a picture show what was asked for, and what does an autoencoder lose?")
app.command()(prompts)
app.command()(nearest)
app.command()(roundtrip)
app.command()(images)
app.command()(autoencoder)
app.command()(tryon)
