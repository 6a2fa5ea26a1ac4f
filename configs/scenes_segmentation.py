"""Semantic segmentation of garments on photographs, with a small PaCa head, from the Fashion-MNIST demo.

Command:   make demo-segmentation      or, step by step:
           python main.py --config=configs/fashion_mnist.py --workdir=runs/fashion_mnist
           python -m paca_jax.data.prepare scenes --data_dir=runs/datasets
           python main.py --config=configs/scenes_segmentation.py --workdir=runs/scenes_segmentation
Reaches:   0.508 mIoU over garments and background on the 300 test scenes (measured, see benchmarks/RESULTS.md).
Hardware:  2 CPU cores, 14 minutes.
"""

from pathlib import Path

from ml_collections import ConfigDict

from paca_jax.train.config import default_config

_RUNS = Path("runs").absolute()


def get_config() -> ConfigDict:
    config = default_config()
    config.task = "segmentation"
    config.model.name = "pacahead_nano"
    config.model.head_channels = 64
    config.init_from = str(_RUNS / "fashion_mnist")
    config.init_allow_new = ("head",)
    config.dataset.name = "scenes"
    config.dataset.data_dir = str(_RUNS / "datasets")
    config.dataset.eval_split = "test"
    config.image_size = 80
    config.short_side = 80
    config.long_side = 160
    config.augment.resize_range = (0.85, 1.2)
    config.augment.photometric = False  # costs accuracy in such a short run
    config.test.size_multiple = 80
    config.test.scales = (1.0, 1.25)
    config.test.flip = True

    config.batch_size = 16
    config.num_epochs = 12.0
    config.schedule = "linear"
    config.learning_rate = 2e-3
    config.warmup_epochs = 0.5
    config.weight_decay = 0.05
    config.clip_norm = 1.0

    config.log_every_steps = 90
    config.eval_every_steps = 2250
    config.checkpoint_every_steps = 90
    return config
