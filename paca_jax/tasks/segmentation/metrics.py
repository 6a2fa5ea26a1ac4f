"""What a segmentation is worth: everything follows from one confusion matrix."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from clu import metrics
from jaxtyping import Array, Bool, Int

Counts = Int[Array, "K K"]


def confusion_matrix(
    labels: Int[Array, "B H W"], predictions: Int[Array, "B H W"], counts: Bool[Array, "B H W"], num_classes: int
) -> Counts:
    """Returns how many pixels of each class (rows) were given to each class (columns).

    Args:
        labels: the true classes.
        predictions: the predicted ones, 0 to `num_classes` - 1.
        counts: which pixels to look at.
        num_classes: classes.
    """
    pairs = labels.astype(jnp.int32) * num_classes + predictions.astype(jnp.int32)
    pairs = jnp.where(counts, pairs, num_classes**2).reshape(len(labels), -1)
    of_images = jax.vmap(lambda image: jnp.bincount(image, length=num_classes**2 + 1))(pairs)
    return jnp.sum(of_images, axis=0)[:-1].reshape(num_classes, num_classes)


@flax.struct.dataclass
class _FromConfusion(metrics.Metric):
    """A number that follows from a confusion matrix, which is summed on the host in 64 bits."""

    confusion: Counts | np.ndarray

    @classmethod
    def from_model_output(cls, confusion: Counts, **_: Array) -> "_FromConfusion":
        """Takes the counts of a batch."""
        return cls(confusion)

    def merge(self, other: "_FromConfusion") -> "_FromConfusion":
        """Adds the counts of another batch."""
        return type(self)(np.asarray(self.confusion, np.int64) + np.asarray(other.confusion, np.int64))

    def _parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns of each class the pixels that were right, that are of it, and that were given to it."""
        counts = np.asarray(self.confusion, np.float64)
        return np.diagonal(counts), counts.sum(1), counts.sum(0)


@flax.struct.dataclass
class MeanIoU(_FromConfusion):
    """Intersection over union, averaged over the classes that any pixel has or was given."""

    def compute(self) -> float:
        """Returns a number from 0 to 1; undefined where no pixel counts."""
        right, true, given = self._parts()
        union = true + given - right
        return float(np.mean(right[union > 0] / union[union > 0])) if union.any() else np.nan


@flax.struct.dataclass
class MeanAccuracy(_FromConfusion):
    """The share of a class's pixels that were right, averaged over the classes that any pixel has."""

    def compute(self) -> float:
        """Returns a number from 0 to 1; undefined where no pixel counts."""
        right, true, _ = self._parts()
        return float(np.mean(right[true > 0] / true[true > 0])) if true.any() else np.nan


@flax.struct.dataclass
class PixelAccuracy(_FromConfusion):
    """The share of all pixels that were right."""

    def compute(self) -> float:
        """Returns a number from 0 to 1; undefined where no pixel counts."""
        right, true, _ = self._parts()
        return float(right.sum() / true.sum()) if true.any() else np.nan


@flax.struct.dataclass
class SegmentationMetrics(metrics.Collection):
    """Mean intersection over union, mean accuracy of the classes, and accuracy over all pixels."""

    miou: MeanIoU
    mean_accuracy: MeanAccuracy
    accuracy: PixelAccuracy
