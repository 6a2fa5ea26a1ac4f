"""The configurations of segmentors and detectors."""

import dataclasses
from typing import Annotated

from paca_jax.errors import check
from paca_jax.fields import OneOf, Range, check_types
from paca_jax.models.config import Channels, PaCaConfig, Rate, Side

HEADS = ("paca", "upernet")
Count = Annotated[int, Range(1, 100_000)]


def _check_backbone(config: PaCaConfig) -> None:
    check(config.num_classes == 0, f"Expected a backbone without classes, got {config.num_classes}. Set num_classes=0.")


def _check_sides(short: int, long: int) -> None:
    check(short <= long, f"Expected a short_side of at most long_side, got {(short, long)}. Correct them.")


@dataclasses.dataclass(frozen=True)
class SegmentorConfig:
    """The configuration of a segmentor: a backbone and a head that predicts class logits at stride 4.

    Attributes:
        backbone: the backbone, without a classifier.
        head: "paca" (section 3.4 of the paper) or "upernet".
        head_channels: the channels of the maps of the head.
        head_dropout_rate: the rate at which whole channels are dropped before a classifier.
        num_classes: the number of classes.
        short_side: the short side in pixels that `preprocess` resizes an image to, if `long_side` permits.
        long_side: the largest long side in pixels.
    """

    backbone: PaCaConfig
    head: Annotated[str, OneOf(*HEADS)] = "paca"
    head_channels: Channels = 256
    head_dropout_rate: Rate = 0.1
    num_classes: Annotated[int, Range(1, 255)] = 150
    short_side: Side = 512
    long_side: Side = 2048

    def __post_init__(self) -> None:
        check_types(self)
        _check_backbone(self.backbone)
        _check_sides(self.short_side, self.long_side)

    @property
    def image_channels(self) -> int:
        """The channels of an image."""
        return self.backbone.image_channels


@dataclasses.dataclass(frozen=True)
class DetectorConfig:
    """The configuration of a detector: a backbone with Mask R-CNN.

    Attributes:
        backbone: the backbone, without a classifier.
        num_classes: the number of object classes, without the background.
        head_channels: the channels of the pyramid, the region proposals and the mask head.
        box_channels: the channels of the dense layers of the box head.
        train_candidates: the number of anchors per level that may become proposals in training.
        candidates: the same in inference.
        proposals: the largest number of regions per image that enter the box head.
        detections: the largest number of detections per image.
        score_threshold: the smallest probability of a detection.
        rpn_samples: the number of anchors per image in the loss of the region proposals.
        box_samples: the number of regions per image in the loss of the box head, up to a quarter of them with objects.
        mask_samples: the number of regions with objects per image in the loss of the mask head.
        short_side: the short side in pixels that `preprocess` resizes an image to, if `long_side` permits.
        long_side: the largest long side in pixels.
    """

    backbone: PaCaConfig
    num_classes: Count = 80
    head_channels: Channels = 256
    box_channels: Channels = 1024
    train_candidates: Count = 2000
    candidates: Count = 1000
    proposals: Count = 1000
    detections: Count = 100
    score_threshold: Rate = 0.05
    rpn_samples: Count = 256
    box_samples: Count = 512
    mask_samples: Count = 128
    short_side: Side = 800
    long_side: Side = 1333

    def __post_init__(self) -> None:
        check_types(self)
        _check_backbone(self.backbone)
        _check_sides(self.short_side, self.long_side)

    @property
    def image_channels(self) -> int:
        """The channels of an image."""
        return self.backbone.image_channels
