"""What segmentors and detectors are made of."""

import dataclasses

from paca_jax.errors import check
from paca_jax.models.config import PaCaConfig

HEADS = ("paca", "upernet")


@dataclasses.dataclass(frozen=True)
class SegmentorConfig:
    """A backbone and a head that gives each patch of stride 4 a logit for each class.

    Attributes:
        backbone: the backbone; it has no classifier.
        head: "paca" (section 3.4 of the paper) or "upernet".
        head_channels: channels of the head's maps.
        head_dropout_rate: rate at which whole channels are dropped before a classifier.
        num_classes: classes.
        short_side: pixels of the short side to which `preprocess` brings an image, if the long one allows.
        long_side: pixels that the long side then has at most.
    """

    backbone: PaCaConfig
    head: str = "paca"
    head_channels: int = 256
    head_dropout_rate: float = 0.1
    num_classes: int = 150
    short_side: int = 512
    long_side: int = 2048

    def __post_init__(self) -> None:
        check(self.backbone.num_classes == 0, f"A segmentor's backbone has no classes, but got {self.backbone.num_classes}.")
        check(self.head in HEADS, f"head is one of {', '.join(HEADS)}, but got {self.head!r}.")
        check(self.head_channels >= 1, f"head_channels is at least 1, but got {self.head_channels}.")
        check(0 <= self.head_dropout_rate < 1, f"head_dropout_rate lies in [0, 1), but got {self.head_dropout_rate}.")
        check(1 <= self.num_classes <= 255, f"num_classes of a segmentor is 1 to 255, but got {self.num_classes}.")
        sides = (self.short_side, self.long_side)
        check(1 <= self.short_side <= self.long_side, f"short_side is positive and at most long_side, but got {sides}.")

    @property
    def image_channels(self) -> int:
        """Channels of an image."""
        return self.backbone.image_channels


@dataclasses.dataclass(frozen=True)
class DetectorConfig:
    """A backbone under Mask R-CNN.

    Attributes:
        backbone: the backbone; it has no classifier.
        num_classes: classes of objects; the background is none of them.
        head_channels: channels of the pyramid, of the region proposals and of the mask head.
        box_channels: channels of the box head's dense layers.
        train_candidates: anchors of a level that may become proposals in training.
        candidates: the same in inference.
        proposals: regions of an image that the box head looks at, at most.
        detections: detections of an image, at most.
        score_threshold: the least probability of a detection.
        rpn_samples: anchors of an image that the loss of the region proposals is taken on.
        box_samples: regions of an image that the box head's loss is taken on; a quarter of them may hold objects.
        mask_samples: regions of an image that the mask head's loss is taken on, of those that hold objects.
        short_side: pixels of the short side to which `preprocess` brings an image, if the long one allows.
        long_side: pixels that the long side then has at most.
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
        check(self.backbone.num_classes == 0, f"A detector's backbone has no classes, but got {self.backbone.num_classes}.")
        for field in dataclasses.fields(self):
            if field.type is int:
                check(getattr(self, field.name) >= 1, f"{field.name} is at least 1, but got {getattr(self, field.name)}.")
        check(0 <= self.score_threshold < 1, f"score_threshold lies in [0, 1), but got {self.score_threshold}.")
        sides = (self.short_side, self.long_side)
        check(self.short_side <= self.long_side, f"short_side is at most long_side, but got {sides}.")

    @property
    def image_channels(self) -> int:
        """Channels of an image."""
        return self.backbone.image_channels
