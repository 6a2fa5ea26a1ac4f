"""The base class of all tasks: all that the training loop knows about data, model, loss and metrics."""

import abc
import functools
import logging
from collections.abc import Callable, Hashable, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
from etils import epath
from jaxtyping import Array, Float, PyTree
from ml_collections import ConfigDict
from PIL import Image

from paca_jax import data, explain
from paca_jax.errors import UserError
from paca_jax.files import write_file
from paca_jax.models import create_model, model_config
from paca_jax.models.model import check_finite

logger = logging.getLogger(__name__)


class LossOutput(NamedTuple):
    """A loss summed over the examples of a batch, so that the parts of a batch add up to the whole.

    Attributes:
        total: the summed loss.
        weight: the divisor of `total`.
        batch_stats: the running statistics after this batch.
        sums: further scalars to log, by name: each a sum and its divisor.
    """

    total: Float[Array, ""]
    weight: Float[Array, ""]
    batch_stats: PyTree
    sums: dict[str, tuple[Float[Array, ""], Float[Array, ""]]]


class Task(abc.ABC):
    """A data set, a model, and how the model is trained and evaluated on the data set.

    A subclass calls `Task.__init__` and then sets `image_shape`, `example`, `_train_transform` and `_eval_transform`.

    Attributes:
        best_metric: the metric that selects the best checkpoint; more is better.
        outputs_by_example: whether the arrays that `evaluate` returns have a leading axis of examples and stay split like the
            batch, rather than being the same on every device.
        model: the network.
        recipe: the arguments with which `create_model` makes the network again on any hardware.
        class_names: the names of the classes, in label order.
        num_train_examples: the size of the training set.
        num_eval_examples: the size of the evaluation set.
        image_shape: (H, W, C) of one training image.
        example: shape and type of each array of one training example, as `train_batches` yields it.
    """

    best_metric: ClassVar[str]
    outputs_by_example: ClassVar[bool] = False

    model: Any
    recipe: dict[str, Any]
    class_names: tuple[str, ...]
    num_train_examples: int
    num_eval_examples: int
    image_shape: tuple[int, int, int]
    example: dict[str, jax.ShapeDtypeStruct]

    _report_file: ClassVar[str]
    _train_transform: Any
    _eval_transform: Any

    def __init__(
        self,
        config: ConfigDict,
        without_data: bool,
        *,
        features: tuple[str, ...],
        model_kind: type,
        model_example: str,
        model_options: dict[str, Any],
    ) -> None:
        """Opens both splits of the data set and makes the model.

        Args:
            config: the config of the run.
            without_data: whether a published data set may be missing; then there are no batches.
            features: the features that an example must have.
            model_kind: the type of the model's config.
            model_example: a phrase for such a model, with an example of its name.
            model_options: further arguments of `create_model`.

        Raises:
            UserError: if a split cannot be opened, or the model is of another kind.
        """
        self._config, dataset = config, config.dataset
        self._logged: set[str] = set()
        open_split = data.describe_dataset if without_data else data.open_dataset
        where, skip = (dataset.data_dir, features), dataset.skip_corrupt
        self._train_set: Any = open_split(dataset.name, dataset.train_split, *where, skip)
        self._eval_set: Any = open_split(dataset.name, dataset.eval_split, *where, skip)
        self.class_names = data.readable_names(self._train_set.class_names)
        self.num_train_examples = len(self._train_set)
        self.num_eval_examples = len(self._eval_set)

        name = config.model.name
        if not isinstance(model_config(name), model_kind):
            raise UserError(
                f"Expected model.name to be {model_example} for the task {config.task!r}, got {name!r}. "
                "Change model.name or task."
            )
        self.recipe = {"name": name, "num_classes": len(self.class_names), "dtype": config.dtype, **model_options}
        self.model = create_model(
            **self.recipe,
            remat=config.remat,
            split_rows=config.mesh.split_rows,
            implementation=config.model.implementation,
        )

    def train_batches(self, start_step: int, num_steps: int, rows: Sequence[int]) -> data.Batches:
        """Yields the given rows of the batches `start_step` to `num_steps` - 1, with `valid`, 1 for rows that count."""
        return data.train_batches(
            self._train_set,
            self._train_transform,
            seed=self._config.seed,
            start_step=start_step,
            num_steps=num_steps,
            shape_of=self._train_shapes,
            **self._reading(rows),
        )

    def eval_batches(self, rows: Sequence[int]) -> data.Batches:
        """Yields the given rows of the evaluation set's batches.

        Every example comes once. Every process gets the same number of batches, of the same shapes.
        """
        return data.eval_batches(self._eval_set, self._eval_transform, groups=self._eval_groups, **self._reading(rows))

    @abc.abstractmethod
    def augment(self, batch: dict[str, Array], rng: jax.Array) -> dict[str, Array]:
        """Returns the input of `loss`, made on the device from a whole training batch (traced under jit)."""

    @abc.abstractmethod
    def loss(self, variables: dict[str, PyTree], batch: dict[str, Array], rng: jax.Array) -> LossOutput:
        """Returns the training loss of an augmented batch, or of a part of one (traced under jit)."""

    @abc.abstractmethod
    def evaluate(self, variables: dict[str, PyTree], batch: dict[str, Array]) -> PyTree:
        """Returns the input of `gather` for a batch: a `clu.metrics.Collection`, unless `gather` is overridden (under jit)."""

    def gather(self, total: Any, outputs: Any) -> Any:
        """Merges the outputs of one more evaluation batch into the total, which is None at first."""
        return outputs if total is None else total.merge(outputs)

    def summarize(self, total: Any) -> dict[str, float]:
        """Returns the metrics over the evaluation set, by name, the same in every process."""
        return {name: float(value) for name, value in total.compute().items()}

    def report(self, variables: dict[str, PyTree], workdir: epath.Path, remake: bool) -> list[epath.Path]:
        """Writes a picture of what the finished model makes of a few evaluation images, and returns the files.

        Args:
            variables: the variables of the finished model.
            workdir: the folder to write to.
            remake: whether to overwrite files that are already there.
        """
        path = workdir / self._report_file
        if remake or not path.exists():
            write_file(path, explain.to_png(self._draw_report(variables)))
        return [path]

    @abc.abstractmethod
    def _draw_report(self, variables: dict[str, PyTree]) -> Image.Image:
        """Returns the picture that `report` writes."""

    def _report_examples(self, count: int) -> range:
        """Returns the indices of at most `count` evaluation examples, spread over the set."""
        return range(0, len(self._eval_set), max(len(self._eval_set) // count, 1))[:count]

    @functools.cached_property
    def _train_shapes(self) -> Callable[..., data.Shape] | None:
        """The shape that each training example needs, as `data.train_batches` takes it; None if all have the same."""
        return None

    @functools.cached_property
    def _eval_groups(self) -> Sequence[Hashable] | None:
        """The group of each evaluation example, as `data.eval_batches` takes it; None if all examples share one shape."""
        return None

    def _check_finite(self, finite: bool) -> None:
        """Checks that the outputs for the evaluation set are finite; a run that skips such steps goes on with a warning.

        Raises:
            UserError: if they are not.
        """
        if not finite and self._config.on_nonfinite == "skip":
            self._log_once("Outputs of the model for the evaluation set are NaN or infinite. Its numbers mean nothing.")
        else:
            check_finite(finite)

    def _log_once(self, message: str) -> None:
        """Logs a warning about the data, the first time that it comes up."""
        if message not in self._logged:
            self._logged.add(message)
            logger.warning("%s", message)

    def _reading(self, rows: Sequence[int]) -> dict[str, Any]:
        """Returns the arguments that the batches of training and evaluation share."""
        return {
            "batch_size": self._config.batch_size,
            "rows": rows,
            "num_workers": self._config.dataset.num_workers,
            "skip_corrupt": self._config.dataset.skip_corrupt,
        }
