"""PaCa-Tiny on ImageNet-1k.

Command:   python main.py --config=configs/paca_tiny.py --workdir=DIR
Variants:  :teacher for the ConvMixer teacher.
Published: 80.9 % top-1. This is the official PyTorch run; this library has not measured it yet.
Hardware:  meant for a TPU slice or GPUs that hold a batch of 1024 images of 224 x 224 pixels. Not measured yet.
"""

from ml_collections import ConfigDict

from configs.imagenet import imagenet_config

VARIANTS = {
    "": "pacavit_tiny_p2cconv_100_0",
    "teacher": "pacavit_convmixer_tiny_100",
}


def get_config(variant: str = "") -> ConfigDict:
    return imagenet_config(VARIANTS, variant)
