"""Colours that go together: correlated within a picture, as they are in nature.

Along three axes, light, yellow to blue and red to green, the colours of natural pictures vary independently of each
other, and far more in the first than in the last (Ruderman, Cronin and Chiao 1998).
"""

import numpy as np

AXES = np.array([[1, 1, 1], [1, 1, -2], [1, -1, 0]]) / np.sqrt([[3], [6], [2]])
SPREAD = np.array([0.36, 0.12, 0.06])  # standard deviation along each axis, of the range of a channel
VIVID = 0.2  # share of pictures whose colours are any at all


def palette(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 3) colours, 0..255: shades of a few main ones about a common mean; or all independent, if vivid."""
    if rng.random() < VIVID:
        return rng.uniform(0, 255, (count, 3))
    spread = SPREAD * np.exp(rng.normal(0, 0.4, 3))
    mean = [rng.uniform(0.3, 0.7) * 3**0.5, *rng.normal(0, SPREAD[1:])]
    main = rng.normal(mean, spread, (rng.integers(2, 10), 3))
    shades = main[rng.integers(len(main), size=count)] + rng.normal(0, spread / 4, (count, 3))
    return (255 * shades @ AXES).clip(0, 255)
