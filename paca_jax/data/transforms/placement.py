"""Where a picture goes when it is augmented: resized, cropped, resized again and mirrored, with all that is in it."""

from typing import NamedTuple

import numpy as np

from paca_jax.data.transforms.resampling import Box, bilinear, nearest


class Placement(NamedTuple):
    """Resizing to `resized`, cutting `box` out of that, resizing it to `final`, and perhaps mirroring left and right.

    Sizes are (height, width) in pixels.

    Attributes:
      original: of the picture.
      resized: of the whole picture before the crop.
      box: the crop, in pixels of the resized picture.
      final: of the result.
      flipped: whether the result is mirrored.
    """

    original: tuple[int, int]
    resized: tuple[int, int]
    box: Box
    final: tuple[int, int]
    flipped: bool

    @classmethod
    def of_whole(cls, original: tuple[int, int], final: tuple[int, int], flipped: bool = False) -> "Placement":
        """Returns the placement of a whole picture."""
        return cls(original, final, (0, 0, *final), final, flipped)

    def within(self, shape: tuple[int, int]) -> "Placement":
        """Returns a placement whose result is made smaller, keeping its proportions, where it would not fit into a shape."""
        height, width = self.final
        if height <= shape[0] and width <= shape[1]:
            return self
        final = _shrunk(self.final, shape)
        if self == Placement.of_whole(self.original, self.final, self.flipped):  # is resized once, not twice
            return Placement.of_whole(self.original, final, self.flipped)
        return self._replace(final=final)

    def pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Returns the (H, W, C) uint8 result for the picture's (h, w, C) uint8 pixels; resizing is `bilinear`."""
        placed = bilinear(bilinear(pixels, self.resized, self.box), self.final, (0, 0, *self.final))
        return placed[:, ::-1] if self.flipped else placed

    def bitmap(self, bitmap: np.ndarray) -> np.ndarray:
        """Returns the (H, W) result for a (h, w) bitmap; resizing is `nearest`."""
        placed = nearest(nearest(bitmap, self.resized, self.box), self.final, (0, 0, *self.final))
        return placed[:, ::-1] if self.flipped else placed

    def points(self, points: np.ndarray) -> np.ndarray:
        """Returns where (..., 2) points x, y in pixels of the picture lie in the result, also outside of it; in float64."""
        top, left, height, width = self.box
        first = np.array([self.resized[1] / self.original[1], self.resized[0] / self.original[0]])
        second = np.array([self.final[1] / width, self.final[0] / height])
        placed = (points * first - (left, top)) * second
        if self.flipped:
            placed[..., 0] = self.final[1] - placed[..., 0]
        return placed

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Returns (n, 4) boxes (left, top, right, bottom in pixels) in the result, cut off at its edges; in float64."""
        height, width = self.final
        corners = np.clip(self.points(boxes.reshape(-1, 2, 2)), 0, (width, height))
        return np.concatenate([corners.min(1), corners.max(1)], 1)


def _shrunk(size: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int]:
    """The largest size of the same proportions, in whole pixels, that fits into a shape."""
    if size[0] * shape[1] > size[1] * shape[0]:
        return shape[0], max(1, size[1] * shape[0] // size[0])
    return max(1, size[0] * shape[1] // size[1]), shape[1]
