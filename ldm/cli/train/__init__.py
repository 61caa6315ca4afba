"""ldm train: one command for each kind of model. To resume, run the same command again."""

import typer

from ldm.cli.train.autoencoder import autoencoder
from ldm.cli.train.bridge import bridge
from ldm.cli.train.diffusion import diffusion
from ldm.cli.train.distill import distill
from ldm.cli.train.error_classifier import error_classifier
from ldm.cli.train.tryon import tryon
from ldm.cli.train.vae import vae

app = typer.Typer(help="Training; to resume, run the same command again.")
app.command()(vae)
app.command()(diffusion)
app.command()(distill)
app.command()(autoencoder)
app.command()(error_classifier)
app.command()(bridge)
app.command()(tryon)
