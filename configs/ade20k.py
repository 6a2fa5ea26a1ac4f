r"""Semantic segmentation of ADE20K (SceneParse150) from ImageNet weights, with the PaCa head or UPerNet.

Command:   unzip ADEChallengeData2016.zip
           python main.py --config=configs/ade20k.py:paca_head,small --workdir=DIR \
               --config.dataset.data_dir=ADEChallengeData2016
Variants:  :HEAD,BACKBONE. HEAD is paca_head or upernet. BACKBONE is tiny, small, base, convmixer_small, small_p2cmlp_100_0 or
           any other model's name without its prefix.
Published: mIoU of whole images at one scale: PaCa head 45.65 tiny, 48.3 small, 50.39 base; UPerNet 44.49, 47.6, 49.67. These
           are the official PyTorch runs; this library has not measured them yet.
Hardware:  meant for eight devices with two images of 512 x 512 pixels each. Not measured yet.

--config.init_from=FILE takes ImageNet weights that are already on disk.

To test with sliding windows, mirrored images and six scales, add --mode=eval --config.test.window=512 --config.test.flip=True
--config.test.scales="(0.5,0.75,1.0,1.25,1.5,1.75)". --config.test.size_multiple=1 turns padding off.

TFDS's own build of scene_parse150 holds the colors of instances instead of class numbers. A build with label maps works with
--config.dataset.name=scene_parse150 --config.dataset.mask_feature=annotation --config.dataset.eval_split=test.
"""

from ml_collections import ConfigDict

from paca_jax.errors import UserError
from paca_jax.train.config import default_config

_PREFIXES = {"paca_head": "pacahead_", "upernet": "upernet_"}
VARIANTS = tuple(f"{head},{backbone}" for head in _PREFIXES for backbone in ("tiny", "small", "base"))


def get_config(variant: str = "paca_head,small") -> ConfigDict:
    head, _, backbone = variant.partition(",")
    if head not in _PREFIXES or not backbone:
        raise UserError(
            f"Expected a variant such as {VARIANTS[0]}, with the head {' or '.join(_PREFIXES)}, got {variant!r}. Change it."
        )
    config = default_config()
    config.task = "segmentation"
    config.model.name = _PREFIXES[head] + backbone
    config.init_from = "official"
    config.init_allow_new = ("head", "clustering")
    config.dataset.name = "ade20k"
    config.dataset.num_workers = 8
    config.image_size = 512
    config.short_side = 512
    config.long_side = 2048
    config.dtype = "bfloat16"

    config.batch_size = 16
    config.num_steps = 160_000
    config.schedule = "linear"
    config.learning_rate = 6e-5
    config.warmup_steps = 1500
    config.warmup_learning_rate = 6e-11
    config.min_learning_rate = 0.0
    config.weight_decay = 0.01
    config.no_decay = r"^backbone/(?!teacher/).*norm"  # LayerNorms do not decay; biases and BatchNorms do
    if head == "paca_head":
        config.rate_scales = ((r"^head/|conv_clustering/project", 10.0),)

    config.log_every_steps = 100
    config.eval_every_steps = 16_000
    config.checkpoint_every_steps = 4000
    return config
