"""The evaluation metrics of segmentors, all computed from one confusion matrix."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from clu import metrics
from jaxtyping import Array, Bool, Int

Counts = Int[Array, "K K"]


def confusion_matrix(
    labels: Int[Array, "B H W"], predictions: Int[Array, "B H W"], counted: Bool[Array, "B H W"], num_classes: int
) -> Counts:
    """Returns the number of pixels of each true class (rows) and predicted class (columns).

    Args:
        labels: the true classes.
        predictions: the predicted classes, 0 to `num_classes` - 1.
        counted: the pixels to count.
        num_classes: the number of classes.
    """
    pairs = labels.astype(jnp.int32) * num_classes + predictions.astype(jnp.int32)
    pairs = jnp.where(counted, pairs, num_classes**2).reshape(len(labels), -1)
    of_images = jax.vmap(lambda image: jnp.bincount(image, length=num_classes**2 + 1))(pairs)
    return jnp.sum(of_images, axis=0)[:-1].reshape(num_classes, num_classes)


@flax.struct.dataclass
class _FromConfusion(metrics.Metric):
    """A metric computed from a confusion matrix, which is summed on the host in 64 bits."""

    confusion: Counts | np.ndarray

    @classmethod
    def from_model_output(cls, confusion: Counts, **_: Array) -> "_FromConfusion":
        """Makes the metric of one batch."""
        return cls(confusion)

    def merge(self, other: "_FromConfusion") -> "_FromConfusion":
        """Adds the counts of another batch."""
        return type(self)(np.asarray(self.confusion, np.int64) + np.asarray(other.confusion, np.int64))

    def parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the number of correct, true and predicted pixels of each class."""
        counts = np.asarray(self.confusion, np.float64)
        return np.diagonal(counts), counts.sum(1), counts.sum(0)


@flax.struct.dataclass
class MeanIoU(_FromConfusion):
    """Intersection over union, averaged over the classes that are true or predicted for any pixel."""

    def compute(self) -> float:
        """Returns a number from 0 to 1, or NaN if no pixel counts."""
        correct, true, predicted = self.parts()
        union = true + predicted - correct
        return float(np.mean(correct[union > 0] / union[union > 0])) if union.any() else np.nan


@flax.struct.dataclass
class MeanAccuracy(_FromConfusion):
    """The fraction of a class's pixels that are correct, averaged over the classes that are true for any pixel."""

    def compute(self) -> float:
        """Returns a number from 0 to 1, or NaN if no pixel counts."""
        correct, true, _ = self.parts()
        return float(np.mean(correct[true > 0] / true[true > 0])) if true.any() else np.nan


@flax.struct.dataclass
class PixelAccuracy(_FromConfusion):
    """The fraction of all pixels that are correct."""

    def compute(self) -> float:
        """Returns a number from 0 to 1, or NaN if no pixel counts."""
        correct, true, _ = self.parts()
        return float(correct.sum() / true.sum()) if true.any() else np.nan


@flax.struct.dataclass
class ClassesCounted(_FromConfusion):
    """The number of classes that the mean intersection over union is over."""

    def compute(self) -> float:
        """Returns a whole number."""
        _, true, predicted = self.parts()
        return float(np.count_nonzero(true + predicted))


@flax.struct.dataclass
class IgnoredFraction(metrics.Metric):
    """The fraction of the pictures' pixels whose label is that of no class, which no other metric counts."""

    ignored: Int[Array, ""] | np.int64
    counted: Int[Array, ""] | np.int64

    @classmethod
    def from_model_output(cls, confusion: Counts, ignored: Int[Array, ""], **_: Array) -> "IgnoredFraction":
        """Makes the metric of one batch."""
        return cls(ignored, jnp.sum(confusion))

    def merge(self, other: "IgnoredFraction") -> "IgnoredFraction":
        """Adds the counts of another batch, in 64 bits."""
        return IgnoredFraction(
            np.int64(self.ignored) + np.int64(other.ignored), np.int64(self.counted) + np.int64(other.counted)
        )

    def compute(self) -> float:
        """Returns a number from 0 to 1, or NaN without a pixel."""
        pixels = int(self.ignored) + int(self.counted)
        return int(self.ignored) / pixels if pixels else np.nan


@flax.struct.dataclass
class SegmentationMetrics(metrics.Collection):
    """Mean intersection over union, mean accuracy over the classes, accuracy over all pixels, and what these leave out.

    They leave out the pixels without a class, and the pictures for which the output of the model is not finite.
    """

    miou: MeanIoU
    mean_accuracy: MeanAccuracy
    accuracy: PixelAccuracy
    classes_counted: ClassesCounted
    ignored_fraction: IgnoredFraction
    nonfinite_fraction: metrics.Average.from_output("nonfinite")  # type: ignore[valid-type]
