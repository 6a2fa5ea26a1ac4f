"""Data: TFDS and folders of images, decoding and augmentation with Pillow, and batches that the seed and the step decide."""

from paca_jax.data.ade20k import ADE20K_CLASSES
from paca_jax.data.batching import eval_batches, train_batches
from paca_jax.data.coco_classes import COCO_CLASSES
from paca_jax.data.dataset import Dataset
from paca_jax.data.dealing import Shape
from paca_jax.data.detection import DetectionEvalTransform, DetectionShapes, DetectionTrainTransform, RandomCrop, object_rows
from paca_jax.data.facts import zero_is_unlabelled
from paca_jax.data.imagenet import IMAGENET_CLASSES, IMAGENET_SYNSETS, readable_names
from paca_jax.data.images import ImageError, convert_image, decode_image, image_sizes
from paca_jax.data.masks import IGNORED, MaskError, decode_mask
from paca_jax.data.object_masks import unpack_masks
from paca_jax.data.objects import ObjectDataset, Objects
from paca_jax.data.preprocessing import preprocess
from paca_jax.data.random_placement import DETR_CROP
from paca_jax.data.run_lengths import encode_bitmap
from paca_jax.data.segmentation import SegmentationEvalTransform, SegmentationTrainTransform
from paca_jax.data.sources import describe_dataset, open_dataset
from paca_jax.data.transforms import MEAN, STD, EvalTransform, TrainTransform, normalise, normalise_inside
from paca_jax.data.workers import Batches

__all__ = [
    "ADE20K_CLASSES",
    "COCO_CLASSES",
    "DETR_CROP",
    "IGNORED",
    "IMAGENET_CLASSES",
    "IMAGENET_SYNSETS",
    "MEAN",
    "STD",
    "Batches",
    "Dataset",
    "DetectionEvalTransform",
    "DetectionShapes",
    "DetectionTrainTransform",
    "EvalTransform",
    "ImageError",
    "MaskError",
    "ObjectDataset",
    "Objects",
    "RandomCrop",
    "SegmentationEvalTransform",
    "SegmentationTrainTransform",
    "Shape",
    "TrainTransform",
    "convert_image",
    "decode_image",
    "decode_mask",
    "describe_dataset",
    "encode_bitmap",
    "eval_batches",
    "image_sizes",
    "normalise",
    "normalise_inside",
    "object_rows",
    "open_dataset",
    "preprocess",
    "readable_names",
    "train_batches",
    "unpack_masks",
    "zero_is_unlabelled",
]
