"""Data: TFDS and folders of images, decoding and augmentation with Pillow, and batches decided by the seed and the step."""

from paca_jax.data.class_names import (
    ADE20K_CLASSES,
    COCO_CLASSES,
    IMAGENET_CLASSES,
    IMAGENET_SYNSETS,
    assumed_names,
    readable_names,
)
from paca_jax.data.codecs.images import ImageError, ImageKindError, convert_image, decode_image
from paca_jax.data.codecs.label_maps import IGNORED, MaskError, decode_mask
from paca_jax.data.codecs.rle import encode_bitmap
from paca_jax.data.loader.batches import eval_batches, train_batches
from paca_jax.data.loader.survey import likely_cause
from paca_jax.data.loader.workers import Batches
from paca_jax.data.sources.dataset import Dataset, counted_names, image_sizes
from paca_jax.data.sources.metadata import zero_is_unlabeled
from paca_jax.data.sources.objects import ObjectDataset, Objects
from paca_jax.data.sources.registry import describe_dataset, open_dataset
from paca_jax.data.transforms.classification import EvalTransform, TrainTransform
from paca_jax.data.transforms.detection import (
    DetectionEvalTransform,
    DetectionShapes,
    DetectionTrainTransform,
)
from paca_jax.data.transforms.object_masks import unpack_masks
from paca_jax.data.transforms.padding import Shape, object_rows
from paca_jax.data.transforms.placement import DETR_CROP, RandomCrop
from paca_jax.data.transforms.preprocessing import Picture, eval_transform, preprocess, read_picture
from paca_jax.data.transforms.segmentation import SegmentationEvalTransform, SegmentationTrainTransform

__all__ = [
    "ADE20K_CLASSES",
    "COCO_CLASSES",
    "DETR_CROP",
    "IGNORED",
    "IMAGENET_CLASSES",
    "IMAGENET_SYNSETS",
    "Batches",
    "Dataset",
    "DetectionEvalTransform",
    "DetectionShapes",
    "DetectionTrainTransform",
    "EvalTransform",
    "ImageError",
    "ImageKindError",
    "MaskError",
    "ObjectDataset",
    "Objects",
    "Picture",
    "RandomCrop",
    "SegmentationEvalTransform",
    "SegmentationTrainTransform",
    "Shape",
    "TrainTransform",
    "assumed_names",
    "convert_image",
    "counted_names",
    "decode_image",
    "decode_mask",
    "describe_dataset",
    "encode_bitmap",
    "eval_batches",
    "eval_transform",
    "image_sizes",
    "likely_cause",
    "object_rows",
    "open_dataset",
    "preprocess",
    "read_picture",
    "readable_names",
    "train_batches",
    "unpack_masks",
    "zero_is_unlabeled",
]
