"""PaCa-Base on ImageNet-1k.

Command:   python main.py --config=configs/paca_base.py --workdir=DIR
Variants:  :teacher for the ConvMixer teacher.
Published: 83.96 % top-1 (conv, the default), 84.22 % (teacher). These are the official PyTorch runs; this library has not
           measured them yet.
Hardware:  meant for a TPU slice or GPUs that hold a batch of 1024 images of 224 x 224 pixels. Not measured yet.
"""

from ml_collections import ConfigDict

from configs.imagenet import imagenet_config

VARIANTS = {
    "": "pacavit_base_p2cconv_100_0",
    "teacher": "pacavit_convmixer_base_100",
}


def get_config(variant: str = "") -> ConfigDict:
    config = imagenet_config(VARIANTS, variant)
    config.clip_norm = 1.0
    return config
