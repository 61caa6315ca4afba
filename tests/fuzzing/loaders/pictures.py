"""Pictures, masks, and what a picture's file says."""

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from fuzzing.loaders.loader import command, loader, noise, photo


def write_pictures(folder: Path) -> None:
    rgb, alpha = photo(), Image.fromarray(noise(20, 24, 4))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    turned = Image.Exif()
    turned[0x0112] = 6
    rgb.save(folder / "plain.png")
    rgb.save(folder / "profile.png", icc_profile=profile)
    alpha.save(folder / "alpha.png")
    rgb.quantize(8).save(folder / "palette.png", transparency=3)
    Image.fromarray(noise(20, 24, dtype=np.uint16)).save(folder / "deep.png")
    rgb.save(folder / "turned.jpg", exif=turned, icc_profile=profile)
    rgb.convert("L").save(folder / "grey.jpg", progressive=True)
    rgb.convert("CMYK").save(folder / "cmyk.jpg")
    rgb.save(folder / "lossy.webp", exif=turned)
    alpha.save(folder / "alpha.webp", lossless=True)
    alpha.save(folder / "moving.webp", save_all=True, append_images=[alpha.rotate(90)])
    rgb.save(folder / "moving.gif", save_all=True, append_images=[photo(1)])
    rgb.save(folder / "moving.png", save_all=True, append_images=[photo(1)])
    rgb.save(folder / "packed.tif", compression="tiff_lzw", exif=turned)
    Image.fromarray(noise(20, 24, dtype=np.uint16)).save(folder / "deep.tif")
    Image.fromarray(noise(20, 24).astype(np.float32) / 255).save(folder / "floats.tif")
    for suffix in ("bmp", "ppm", "ico", "tga", "pcx", "jp2", "avif", "dds", "sgi"):
        try:
            rgb.save(folder / f"plain.{suffix}")
        except (KeyError, OSError, ValueError):
            (folder / f"plain.{suffix}").unlink(missing_ok=True)  # not every build has every codec


def pictures(root: Path, damaged: Path) -> None:
    from ldm.images import load, to_pixels

    to_pixels(damaged, size=(16, 16))
    load(damaged, "black")


def write_masks(folder: Path) -> None:
    mask = np.zeros((16, 24), np.uint8)
    mask[4:9, 5:12] = 255
    Image.fromarray(mask).save(folder / "grey.png")
    Image.fromarray(mask > 0).save(folder / "bits.png")
    Image.fromarray(np.stack([mask] * 4, -1)).save(folder / "alpha.png")
    Image.fromarray(mask).convert("RGB").save(folder / "mask.jpg")


def masks(root: Path, damaged: Path) -> None:
    from ldm.masks import to_map, to_mask

    to_mask(damaged, (16, 24))
    to_map(damaged, (16, 24))


def uploads(root: Path, damaged: Path) -> None:
    from ldm.ui import tasks

    tasks.opened(damaged)
    tasks.painted([damaged], (20, 24), 24)


TEXT = (
    'a "red" apple: on a table, <lora:x:1>\nsecond line\nNegative prompt: blurred\nSteps: 20, Sampler: DPM++ 2M, '
    'Schedule type: Karras, CFG scale: 7.5, Seed: 42, Size: 512x768, Model hash: 0123456789, Clip skip: 2, Note: "a, b"'
)


def write_told(folder: Path) -> None:
    from ldm.metadata import attach, save

    told = {"prompt": "a red apple", "seed": 7, "width": 24, "height": 20, "sampler": "ddim", "deep": {"a": [1, 2.5]}}
    for suffix in ("png", "jpg", "webp"):
        save(attach(photo(), told), folder / f"ours.{suffix}")
        picture = photo()
        picture.info["parameters"] = TEXT
        save(picture, folder / f"theirs.{suffix}")


def what_made_a_picture(root: Path, damaged: Path) -> None:
    from ldm import metadata

    json.dumps(metadata.told(damaged))


def ldm_info_of_a_picture(root: Path, damaged: Path) -> None:
    command("info", damaged)


loader(pictures, write_pictures, share=6)
loader(masks, write_masks)
loader(uploads, write_masks)
loader(what_made_a_picture, write_told, share=2)
loader(ldm_info_of_a_picture, write_told)
