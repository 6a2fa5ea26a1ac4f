"""Config files that fail in any way, and values that no run can take."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from paca_jax.checkpoints import write_state_dict
from paca_jax.checkpoints.loading import read_model
from paca_jax.convert import to_torch
from tests.proof.hostile.case import BOXED, MASKED, Case, copies, nothing, short, train, writes

_START = "from paca_jax.train.config import default_config\n"
FILES: dict[str, str | bytes] = {
    "a syntax error": "def get_config(:\n",
    "an import error": "import no_such_package\ndef get_config(): pass\n",
    "a name error": "def get_config():\n    return default_config()\n",
    "an exception with newlines": "raise RuntimeError('one\\nerror: two\\nthree')\n",
    "division by zero": "1 / 0\n",
    "an endless recursion": "def get_config():\n    return get_config()\n",
    "an assertion": "assert False\n",
    "a file that is missing": "open('/no/such/file')\n",
    "no get_config": "x = 1\n",
    "a get_config that is a number": "get_config = 3\n",
    "a get_config with two arguments": "def get_config(a, b):\n    return a\n",
    "None": "def get_config():\n    return None\n",
    "a dict": "def get_config():\n    return {'batch_size': 8}\n",
    "an empty config": "from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict()\n",
    "an incomplete config": _START + "def get_config():\n    c = default_config().unlock()\n    del c.augment\n    return c\n",
    "a key that is missing": _START
    + "def get_config():\n    c = default_config().unlock()\n    del c.clip_norm\n    return c\n",
    "a key that is added": _START + "def get_config():\n    c = default_config().unlock()\n    c.extra = 3\n    return c\n",
    "a key of another type": _START + "def get_config():\n    c = default_config()\n    c.batch_size = 'many'\n    return c\n",
    "a group that is a number": _START
    + "def get_config():\n    c = default_config().unlock()\n    del c.model\n    c.model = 3\n    return c\n",
    "nothing": "",
    "UTF-16": "def get_config(): pass".encode("utf-16"),
    "Latin-1": b"# K\xe4fer\ndef get_config(): pass\n",
    "zero bytes": b"def get_config(): pass\0\n",
    "random bytes": bytes(range(256)),
}
EXITS = {
    "sys.exit()": "import sys\nsys.exit()\n",
    "sys.exit(0) in get_config": "import sys\ndef get_config():\n    sys.exit(0)\n",
    "exit with a text": "raise SystemExit('error: mine')\n",
    "sys.exit(2)": "import sys\nsys.exit(2)\n",
}
NAN, INF = float("nan"), float("inf")
NUMBERS: dict[str, tuple[float, ...]] = {
    "learning_rate": (-1e-3, INF, NAN),
    "warmup_learning_rate": (-1.0, NAN),
    "min_learning_rate": (-1.0, INF),
    "weight_decay": (-0.1, NAN, INF),
    "beta1": (2.0, 1.0, -0.1, NAN),
    "beta2": (2.0, 1.0, NAN),
    "clip_norm": (NAN, -1.0, INF),
    "ema_decay": (1.0, -0.5, NAN),
    "layer_decay": (0.0, 2.0, NAN),
    "label_smoothing": (1.0, NAN),
    "warmup_epochs": (NAN, -1.0, INF),
    "learning_rate_batch_size": (0, -8),
    "augment.color_jitter": (NAN, -1.0),
    "augment.rand_magnitude": (NAN, INF),
    "augment.rand_magnitude_std": (NAN, -1.0),
    "augment.erase_probability": (1.5, NAN),
    "augment.mixup_alpha": (NAN, -1.0, INF),
    "augment.cutmix_alpha": (NAN, INF),
    "augment.cutmix_probability": (2.0, NAN),
    "augment.rand_operations": (-1, 10**9),
    "eval_crop": (0.0, NAN, 2.0),
    "model.drop_path_rate": (NAN, 1.0),
    "model.layer_scale": (NAN,),
    "accumulate_steps": (0, -1, 3),
    "checkpoint_keep": (0, -1),
    "log_every_steps": (0,),
    "seed": (-1, 2**70),
    "dataset.num_workers": (-1, 10**6),
    "mesh.data": (0, -2, 3),
    "mesh.model": (0, 10**12),
    "warmup_steps": (-3,),
    "image_size": (0, -32),
}
TUPLES: dict[str, tuple[str, ...]] = {
    "augment.crop_scale": (
        "('a','b')",
        "(None,1)",
        "(0.5,)",
        "(0.1,0.5,0.1,0.5)",
        "(1.0,0.5)",
        "(-1,1)",
        "(float('nan'),1)",
        "((1,2),3)",
    ),
    "augment.crop_ratio": ("(0,1)", "('x',1)", "(1,2,3)"),
    "decay_epochs": ("('x',)", "(-1,)", "(None,)"),
    "profile_steps": ("(0,0)", "(-2,-1)", "(1.5,2)", "('1','2')", "(2,1)", "(1,)"),
    "rate_scales": ("(('(',1.0),)", "(('head',-1.0),)", "(('head','2'),)", "('head',2.0)", "((1,2.0),)", "(('head',1,2),)"),
    "test.scales": ("(0.0,)", "('a',)", "()", "(-1,)"),
    "model.num_heads": ("(0,)", "('1',)", "(1,1)", "(1.5,)"),
    "model.embed_dims": ("(0,)", "(None,)", "()"),
    "model.clusters": ("(-1,)", "('4',)", "((4,),)"),
    "model.mlp_ratios": ("(float('inf'),)", "('4',)", "(-1,)"),
    "init_allow_new": ("('heads',)", "(1,)", "('head',None)"),
}
SEGMENTATION = {
    "augment.resize_range": ("(2.0,0.5)", "(0,1)", "('a',2)"),
    "test.window": ("-5",),
    "test.window_stride": ("0", "-1"),
    "test.size_multiple": ("0",),
    "short_side": ("0",),
    "augment.category_limit": ("nan",),
}
DETECTION = {
    "augment.short_sides": ("(0,)", "(1.5,)", "()", "('a',)"),
    "augment.bucket_sides": ("()", "(0,)", "(None,)"),
    "long_side": ("-1",),
}
TEXTS = {
    "task": "classify",
    "dtype": "float8",
    "schedule": "polynomial",
    "on_nonfinite": "ignore",
    "no_decay": "(",
    "model.name": "pacavit_nono",
    "model.clustering": "kmeans",
    "model.implementation": "cuda",
    "init_weights": "best",
    "dataset.name": "no_such_data",
    "dataset.train_split": "train[:0]",
    "dataset.eval_split": "tests",
    "dataset.data_dir": "/no/such/folder",
    "init_from": "/no/such/weights",
}
# Larger than any machine.
SIZES = {
    "batch_size": 10**12,
    "image_size": 10**9,
    "model.clusters": "(1000000000,)",
    "model.embed_dims": "(1000000000,)",
    "model.depths": "(1000000000,)",
    "model.mlp_ratios": "(1e12,)",
    "model.clustering_kernel_sizes": "(1000000001,)",
    "model.image_channels": 10**9,
    "num_steps": 10**30,
}


def cases(world: Path, rng: random.Random) -> Iterator[Case]:
    """Yields the cases of this module."""
    for kind, files in (("config files that fail", FILES), ("config files that exit", EXITS)):
        for name, content in files.items():
            run = (
                ["train", "--config=mine.py", "--workdir=run"]
                if rng.random() < 0.7
                else ["plan", "--config=mine.py", "--topology=v5e:2x2"]
            )
            yield Case(kind, f"{run[0]}: {name}", writes("mine.py", content), run, ("mine.py",))
    for name, file in (
        ("a folder", "."),
        ("a missing file", "absent.py"),
        ("a device", "/dev/null"),
        ("a variant that the file has not", "mine.py:tiny"),
    ):
        make = writes("mine.py", _START + "def get_config():\n    return default_config()\n")
        yield Case(
            "config files that fail", name, make, ["train", f"--config={file}", "--workdir=run"], (file, file.split(":")[0])
        )
    for key, numbers in NUMBERS.items():
        for number in numbers:
            yield _value("numbers that no run can take", key, number)
    for key, values in TUPLES.items():
        for value in values:
            yield _value("wrong types and lengths in tuples", key, value)
    for key, text in TEXTS.items():
        yield _value("texts that mean nothing", key, text)
    for key, size in SIZES.items():
        yield _value("sizes beyond any machine", key, size)
    for number in ("nan", "inf", "-1", "0", "1e300"):
        flags = ["--config.num_steps=None", f"--config.num_epochs={number}"]
        yield Case("numbers that no run can take", f"num_epochs={number}", nothing, train(*flags), ("num_epochs",))
    yield from _of_other_tasks(world)
    yield from _updates(world)


def _value(kind: str, key: str, value: Any) -> Case:
    # The last one wins, so that the other keys stay those of the smallest run.
    line = [flag for flag in train() if not flag.startswith(f"--config.{key}=")]
    field = key.rpartition(".")[2]
    return Case(
        kind, f"{key}={short(value)}", nothing, [*line, f"--config.{key}={value}"], (field, field.replace("_", " "), str(value))
    )


def _of_other_tasks(world: Path) -> Iterator[Case]:
    for task, keys, on in (("segmentation", SEGMENTATION, MASKED), ("detection", DETECTION, BOXED)):
        make = copies(world, on["dataset.data_dir"])
        for key, values in keys.items():
            for value in values:
                run = train(on=on | {key: value})
                yield Case(f"values of {task}", f"{key}={value}", make, run, (key.rpartition(".")[2], key.replace("_", " ")))
        run = train(on=on | {"model.name": "pacavit_nano"})
        yield Case(f"values of {task}", "a classifier", make, run, ("pacavit_nano", "model"))


def _updates(world: Path) -> Iterator[Case]:
    """Finite gradients whose updates are not finite: weight decay of a large bias."""

    def make() -> None:
        loaded = read_model(world / "trained")
        state = to_torch(loaded.variables, loaded.model)
        state["head.bias"] = np.where(np.arange(len(state["head.bias"])) == 0, 1e36, state["head.bias"]).astype(np.float32)
        write_state_dict("large.safetensors", state, loaded.recipe)

    for rate, decay, scale in ((1000.0, 1000.0, 1.0), (1000.0, 100.0, 10.0), (1.0, 100.0, 1e6)):
        changes = {"learning_rate": rate, "weight_decay": decay, "rate_scales": f"(('head/bias',{scale}),)"}
        run = train(init_from="large.safetensors", no_decay="nothing", warmup_steps=0, **changes)
        yield Case(
            "updates that are not finite", f"a rate of {rate}, a decay of {decay}, {scale} times", make, run, ("finite",)
        )
