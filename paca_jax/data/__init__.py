"""Data: TFDS and folders of images, decoding and augmentation with Pillow, and batches that the seed and the step decide."""

from paca_jax.data.batching import eval_batches, train_batches
from paca_jax.data.dataset import Dataset
from paca_jax.data.facts import describe_dataset
from paca_jax.data.imagenet import IMAGENET_CLASSES, IMAGENET_SYNSETS, readable_names
from paca_jax.data.images import decode_image
from paca_jax.data.sources import open_dataset
from paca_jax.data.transforms import MEAN, STD, EvalTransform, TrainTransform, normalise, preprocess
from paca_jax.data.workers import Batches

__all__ = [
    "IMAGENET_CLASSES",
    "IMAGENET_SYNSETS",
    "MEAN",
    "STD",
    "Batches",
    "Dataset",
    "EvalTransform",
    "TrainTransform",
    "decode_image",
    "describe_dataset",
    "eval_batches",
    "normalise",
    "open_dataset",
    "preprocess",
    "readable_names",
    "train_batches",
]
