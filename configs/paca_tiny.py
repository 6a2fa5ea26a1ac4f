"""PaCa-Tiny on ImageNet-1k.

Command:   python main.py --config=configs/paca_tiny.py --workdir=DIR            (:teacher for the ConvMixer teacher)
Published: 80.9 % top-1 (the official PyTorch run; not measured with this library yet).
Hardware:  made for a TPU slice or GPUs that hold 1024 images of 224 pixels together; `mesh` lays them out.
"""

from ml_collections import ConfigDict

from configs.imagenet import imagenet_config

VARIANTS = {
    "": "pacavit_tiny_p2cconv_100_0",
    "teacher": "pacavit_convmixer_tiny_100",
}


def get_config(variant: str = "") -> ConfigDict:
    return imagenet_config(VARIANTS, variant)
