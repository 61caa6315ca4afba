"""How good are drawn pictures? Two folders, of what was drawn and of true pictures -> figures with 95 % intervals.

fid, kid            how far the drawn set is from the true one, by Inception's features (see `ldm.evaluation.distances`)
frechet, kernel     the same of another network's features: neither FID nor KID, and not to be compared with them
precision, recall   the share of drawn pictures that could be true ones, and the share of true ones that could be drawn,
                    of the same features (see `coverage`)
psnr, ssim, lpips   means over the pictures that pair by their paths, as a/cat.png with a/cat.jpg (see `pairs`);
                    psnr in dB, over those that are not equal; lpips by VGG16
clip_score          100 times the cosine between picture and prompt (see `clip`); the prompt is in the
                    picture's metadata, or its caption as training reads it (see `ldm.data.folders`)

What cannot be given is left out with the reason, and is an error where it was asked for by name. An interval says where
the mean figure of sets as large as the drawn one, by the same model and beside these true pictures, lies; that of
recall, a share of the true ones, where it lies for sets as large as the true one, beside these drawn pictures (see
`intervals`). None shows that distances of few pictures are too large, FID above all where pictures are
fewer than its 2048 features: compare it between sets of one size alone.
"""

from ldm.evaluation.images.figures import METRICS, evaluate_images, table

__all__ = ["METRICS", "evaluate_images", "table"]
