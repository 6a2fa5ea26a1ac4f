"""PaCa-Small on ImageNet-1k, and the paper's ablations of the clustering and the number of clusters.

Command:   python main.py --config=configs/paca_small.py:VARIANT --workdir=DIR
Published: 83.08 % top-1 (conv, the default), 83.13 (mlp), 83.17 (teacher), 82.28 (2_0), 82.95 (49_0), 82.98 (49_100),
           82.87 (100_49), 83.05 (100), 82.93 (blockwise). These are the official PyTorch runs; this library has not measured
           them yet. `linear` has no published number.
Hardware:  meant for a TPU slice or GPUs that hold a batch of 1024 images of 224 x 224 pixels. Not measured yet.
"""

from ml_collections import ConfigDict

from configs.imagenet import imagenet_config

VARIANTS = {
    "": "pacavit_small_p2cconv_100_0",
    "mlp": "pacavit_small_p2cmlp_100_0",
    "linear": "pacavit_small_p2clinear_100_0",
    "teacher": "pacavit_convmixer_small_100",
    "2_0": "pacavit_small_p2cconv_2_0",
    "49_0": "pacavit_small_p2cconv_49_0",
    "49_100": "pacavit_small_p2cconv_49_100",
    "100_49": "pacavit_small_p2cconv_100_49",
    "100": "pacavit_small_p2cconv_100",
    "blockwise": "pacavit_small_p2cconv_100_blockwise",
}


def get_config(variant: str = "") -> ConfigDict:
    return imagenet_config(VARIANTS, variant)
