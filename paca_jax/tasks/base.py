"""The protocol between the loop and a task."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
from clu import metrics
from etils import epath
from jaxtyping import Array, Float, PyTree
from ml_collections import ConfigDict

from paca_jax import data
from paca_jax.data import Batches
from paca_jax.errors import UserError
from paca_jax.models import create_model, model_config


class LossOutput(NamedTuple):
    """A sum over the examples of a batch, so that parts of a batch add up to the whole.

    Attributes:
        total: the summed loss.
        weight: by what to divide it.
        batch_stats: the running statistics after this batch.
        sums: further scalars to log, by name: each a sum, and by what to divide it.
    """

    total: Float[Array, ""]
    weight: Float[Array, ""]
    batch_stats: PyTree
    sums: dict[str, tuple[Float[Array, ""], Float[Array, ""]]]


class OnDataset:
    """What every task does with the two splits of a data set and a model of its kind; the attributes are those of `Task`."""

    def __init__(self, config: ConfigDict, features: tuple[str, ...], without_data: bool) -> None:
        """Opens the splits.

        Args:
            config: the run's config.
            features: what an example shall have.
            without_data: whether a published data set need not be there; then there are no batches.
        """
        self._config, dataset = config, config.dataset
        open_split = data.describe_dataset if without_data else data.open_dataset
        self._train_set: Any = open_split(dataset.name, dataset.train_split, dataset.data_dir, features)
        self._eval_set: Any = open_split(dataset.name, dataset.eval_split, dataset.data_dir, features)
        self.class_names = data.readable_names(self._train_set.class_names)
        self.num_train_examples = len(self._train_set)
        self.num_eval_examples = len(self._eval_set)

    def _make_model(self, kind: type, what: str, options: dict[str, Any]) -> Any:
        """Makes the model that the config names, and keeps its recipe.

        Args:
            kind: what the config of such a model is.
            what: a word for it, with an example.
            options: further arguments of `create_model`.

        Raises:
            UserError: if the model is of another kind.
        """
        config = self._config
        if not isinstance(model_config(config.model.name), kind):
            raise UserError(f"The task {config.task!r} needs {what}, but model.name is {config.model.name!r}.")
        self.recipe = {"name": config.model.name, "num_classes": len(self.class_names), "dtype": config.dtype, **options}
        return create_model(**self.recipe, remat=config.remat, split_rows=config.mesh.split_rows)

    def _pictured(self, count: int) -> range:
        """Returns which evaluation examples a report shows: at most `count`, spread over the set."""
        return range(0, len(self._eval_set), max(len(self._eval_set) // count, 1))[:count]

    def _reading(self, rows: Sequence[int]) -> dict[str, Any]:
        """Returns the arguments that the batches of training and evaluation share."""
        return {
            "batch_size": self._config.batch_size,
            "rows": rows,
            "num_workers": self._config.dataset.num_workers,
            "skip_corrupt": self._config.dataset.skip_corrupt,
        }


class Mergeable:
    """The part of a task whose `evaluate` returns a `clu.metrics.Collection`."""

    outputs_by_example = False

    def gather(self, total: metrics.Collection | None, outputs: metrics.Collection) -> metrics.Collection:
        """Merges the metrics of one more batch: sums and counts, divided once at the end."""
        return outputs if total is None else total.merge(outputs)

    def summarize(self, total: metrics.Collection) -> dict[str, float]:
        """Returns the metrics as numbers."""
        return {name: float(value) for name, value in total.compute().items()}


class Task(Protocol):
    """A data set, a model and what one wants of the other.

    Attributes:
        recipe: the arguments with which `create_model` makes that network again.
        class_names: what the labels mean, in their order.
        num_train_examples: size of the training set.
        num_eval_examples: size of the evaluation set.
        image_shape: (H, W, C) of one training image.
        example: shape and type of each array of one training example, as `train_batches` yields it.
        best_metric: the metric that tells the best checkpoint; more is better.
        outputs_by_example: whether what `evaluate` returns has an axis of examples first and stays split like the batch, rather
            than being the same everywhere.
    """

    recipe: dict[str, Any]
    class_names: tuple[str, ...]
    num_train_examples: int
    num_eval_examples: int
    image_shape: tuple[int, int, int]
    example: dict[str, jax.ShapeDtypeStruct]
    best_metric: str
    outputs_by_example: bool

    def __init__(self, config: ConfigDict, model_overrides: dict[str, Any], without_data: bool) -> None: ...

    @property
    def model(self) -> nn.Module:
        """The network."""

    def train_batches(self, start_step: int, num_steps: int, rows: Sequence[int]) -> Batches:
        """Yields the given rows of the batches `start_step` to `num_steps` - 1, with `valid`, 1 for rows that count."""

    def eval_batches(self, rows: Sequence[int]) -> Batches:
        """Yields the given rows of the evaluation set's batches, every example once, as many batches in every process."""

    def augment(self, batch: dict[str, Array], rng: jax.Array) -> dict[str, Array]:
        """Returns what `loss` takes, made on the device from a whole training batch (traced under jit)."""

    def loss(self, variables: dict[str, PyTree], batch: dict[str, Array], rng: jax.Array) -> LossOutput:
        """Returns the training loss of an augmented batch, or of a part of one (traced under jit)."""

    def evaluate(self, variables: dict[str, PyTree], batch: dict[str, Array]) -> PyTree:
        """Returns what `gather` takes of a batch (traced under jit)."""

    def gather(self, total: Any, outputs: PyTree) -> Any:
        """Returns what is known of the evaluation set after one more batch; `total` is None at first."""

    def summarize(self, total: Any) -> dict[str, float]:
        """Returns the metrics over the evaluation set, by name, the same in every process."""

    def report(self, variables: dict[str, PyTree], workdir: epath.Path, remake: bool) -> list[epath.Path]:
        """Writes what a person should see of the finished model, and returns the files.

        Args:
            variables: of the finished model.
            workdir: where the files go.
            remake: whether to write files anew that are there already.
        """
