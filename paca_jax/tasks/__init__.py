"""The three tasks over one base class: data, loss, metrics and predictions of each."""

from paca_jax.tasks.base import LossOutput, Task
from paca_jax.tasks.classification.task import Classification
from paca_jax.tasks.detection.task import Detection
from paca_jax.tasks.segmentation.task import Segmentation

__all__ = ["Classification", "Detection", "LossOutput", "Segmentation", "Task"]
