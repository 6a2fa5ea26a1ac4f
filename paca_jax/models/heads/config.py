"""What a segmentor is made of."""

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
