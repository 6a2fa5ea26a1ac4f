"""Detection and instance segmentation of garments on photographs, with a small Mask R-CNN, from the Fashion-MNIST demo.

Command:   make demo-detection         or, step by step:
           python main.py --config=configs/fashion_mnist.py --workdir=runs/fashion_mnist
           python -m paca_jax.data.prepare scenes --data_dir=runs/datasets
           python main.py --config=configs/scenes_detection.py --workdir=runs/scenes_detection
Reaches:   box AP50 0.590 and mask AP50 0.535 on the 300 test scenes (measured, see benchmarks/RESULTS.md).
Hardware:  2 CPU cores, 18 minutes.
"""

from pathlib import Path

from ml_collections import ConfigDict

from paca_jax.train.config import default_config

_RUNS = Path("runs").absolute()


def get_config() -> ConfigDict:
    config = default_config()
    config.task = "detection"
    config.model.name = "mask_rcnn_nano"
    config.model.head_channels = 64
    config.model.box_channels = 256
    config.model.train_candidates = 200
    config.model.candidates = 200
    config.model.proposals = 100
    config.model.detections = 20
    config.model.rpn_samples = 64
    config.model.box_samples = 64
    config.model.mask_samples = 16
    config.init_from = str(_RUNS / "fashion_mnist")
    config.init_allow_new = ("head",)
    config.dataset.name = "scenes"
    config.dataset.data_dir = str(_RUNS / "datasets")
    config.dataset.eval_split = "test"
    config.short_side = 96
    config.long_side = 160
    config.augment.short_sides = (96,)
    config.augment.bucket_sides = (96,)
    config.augment.detr_crop = False

    config.batch_size = 8
    config.num_epochs = 2.0
    config.schedule = "linear"
    config.learning_rate = 1e-3
    config.warmup_epochs = 0.1
    config.weight_decay = 0.05
    config.clip_norm = 1.0

    config.log_every_steps = 50
    config.eval_every_steps = 750
    config.checkpoint_every_steps = 75
    return config
