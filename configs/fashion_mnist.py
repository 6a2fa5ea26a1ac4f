"""Image classification of Fashion-MNIST with pacavit_nano, on 12,000 training and 2,000 test images that ship with the library.

Command:   python main.py --config=configs/fashion_mnist.py --workdir=runs/fashion_mnist      (or: make demo)
Reaches:   0.8660 top-1 accuracy on the test images (measured, see benchmarks/RESULTS.md).
Hardware:  2 CPU cores, 4 minutes.
"""

from pathlib import Path

from ml_collections import ConfigDict

from paca_jax.train.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.model.name = "pacavit_nano"
    config.dataset.name = "fashion_mnist_small"
    config.dataset.data_dir = str(Path(__file__).resolve().parent.parent / "datasets")
    config.dataset.eval_split = "test"
    config.image_size = 32
    config.eval_crop = 1.0
    config.augment.crop_scale = (1.0, 1.0)  # only flips: crops cost accuracy in such a short run
    config.augment.crop_ratio = (1.0, 1.0)

    config.batch_size = 32
    config.num_epochs = 7.0
    config.learning_rate = 2e-3
    config.warmup_epochs = 0.5
    config.weight_decay = 0.05
    config.label_smoothing = 0.0
    config.clip_norm = 1.0

    config.log_every_steps = 100
    config.eval_every_steps = 875
    config.checkpoint_every_steps = 125
    return config
