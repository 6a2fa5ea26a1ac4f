"""The configurations of segmentors and detectors."""

import dataclasses

from paca_jax.errors import check
from paca_jax.fields import check_types
from paca_jax.models.config import PaCaConfig

HEADS = ("paca", "upernet")


def _check_backbone(config: PaCaConfig) -> None:
    check(config.num_classes == 0, f"Expected a backbone without classes, got {config.num_classes}. Set num_classes=0.")


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
    head: str = "paca"
    head_channels: int = 256
    head_dropout_rate: float = 0.1
    num_classes: int = 150
    short_side: int = 512
    long_side: int = 2048

    def __post_init__(self) -> None:
        check_types(self)
        _check_backbone(self.backbone)
        check(self.head in HEADS, f"Expected a known head, got {self.head!r}. Choose one of {', '.join(HEADS)}.")
        check(self.head_channels >= 1, f"Expected head_channels of at least 1, got {self.head_channels}. Correct it.")
        rate = self.head_dropout_rate
        check(0 <= rate < 1, f"Expected head_dropout_rate in [0, 1), got {rate}. Correct it.")
        check(1 <= self.num_classes <= 255, f"Expected num_classes from 1 to 255, got {self.num_classes}. Correct it.")
        sides = (self.short_side, self.long_side)
        check(
            1 <= self.short_side <= self.long_side,
            f"Expected short_side from 1 and at most long_side, got {sides}. Correct them.",
        )

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
    num_classes: int = 80
    head_channels: int = 256
    box_channels: int = 1024
    train_candidates: int = 2000
    candidates: int = 1000
    proposals: int = 1000
    detections: int = 100
    score_threshold: float = 0.05
    rpn_samples: int = 256
    box_samples: int = 512
    mask_samples: int = 128
    short_side: int = 800
    long_side: int = 1333

    def __post_init__(self) -> None:
        check_types(self)
        _check_backbone(self.backbone)
        for field in dataclasses.fields(self):
            if field.type is int:
                value = getattr(self, field.name)
                check(value >= 1, f"Expected {field.name} of at least 1, got {value}. Correct it.")
        check(0 <= self.score_threshold < 1, f"Expected score_threshold in [0, 1), got {self.score_threshold}. Correct it.")
        sides = (self.short_side, self.long_side)
        check(self.short_side <= self.long_side, f"Expected a short_side of at most long_side, got {sides}. Correct them.")

    @property
    def image_channels(self) -> int:
        """The channels of an image."""
        return self.backbone.image_channels
