"""Command lines: unknown flags, missing values, values twice, sizes."""

import random
from collections.abc import Iterator
from pathlib import Path

from tests.proof.hostile.case import CONFIG, Case, copies, nothing, predict, train


def cases(world: Path, rng: random.Random) -> Iterator[Case]:
    """Yields the cases of this module."""
    kind = "unknown flags and missing values"
    there = copies(world, "a.png", "classifier.safetensors")
    convert = ["convert", "classifier.safetensors", "new.safetensors"]
    plan = ["plan", CONFIG, "--topology=v5e:2x2"]
    for run, names in (
        (train("--wrokdir=x"), ("wrokdir",)),
        (train("--config.batchsize=8"), ("batchsize",)),
        (train("--config.model.depth=8"), ("depth",)),
        (train("--config.batch_size=eight"), ("batch_size", "eight")),
        (train("--config.batch_size=8.5"), ("batch_size", "8.5")),
        (train("--config.batch_size="), ("batch_size",)),
        (train("--config.batch_size"), ("batch_size",)),
        (train("--config.batch_size=None"), ("batch_size",)),
        (train("--config.augment.flip=maybe"), ("flip", "maybe")),
        (train("--config.model=3"), ("model",)),
        (train("--config.augment={}"), ("augment",)),
        (train("--config.augment.crop_scale=0.5"), ("crop_scale",)),
        (train("--config.augment.crop_scale=(0.1"), ("crop_scale",)),
        (train("--config.model.depths=two"), ("depths",)),
        (train("--config.decay_epochs=__import__('os')"), ("decay_epochs",)),
        (train("more"), ("more",)),
        (train("--mode=test"), ("mode",)),
        (train("--weights=best"), ("weights",)),
        (train("--weights=raw"), ("weights",)),
        (train("--num_processes=x"), ("num_processes",)),
        (train("--num_processes=2"), ("process", "coordinator")),
        (train("--num_processes=-1", "--process_id=0", "--coordinator_address=localhost:1"), ("process",)),
        (train("--process_id=5", "--num_processes=2", "--coordinator_address=localhost:1"), ("process",)),
        (train("--heartbeat_timeout=0"), ("heartbeat_timeout",)),
        (["train"], ("config",)),
        (["train", "--config="], ("config",)),
        (["train", "--config"], ("config",)),
        (["train", CONFIG, "--workdir"], ("workdir",)),
        (["train", CONFIG], ("workdir",)),
        (["trian"], ("trian",)),
        ([], ("COMMAND",)),
        (predict("classifier.safetensors"), ("IMAGE",)),
        (["predict", "a.png", "--out", "out"], ("checkpoint",)),
        (predict("classifier.safetensors", "a.png", flags=["--image-size=x"]), ("image-size",)),
        (predict("classifier.safetensors", "a.png", flags=["--image-size=0"]), ("image_size", "image-size")),
        (predict("classifier.safetensors", "a.png", flags=["--image-size=-32"]), ("image_size", "image-size")),
        (predict("classifier.safetensors", "a.png", flags=["--weights=ema"]), ("averaged", "weights")),
        (predict("classifier.safetensors", "a.png", flags=["--model=resnet"]), ("resnet",)),
        (predict("classifier.safetensors", "a.png", flags=["--unknown"]), ("unknown",)),
        ([*convert, "--clusters=1,2"], ("clusters",)),
        ([*convert, "--clusters=x"], ("clusters",)),
        ([*convert, "--allow-new=tail"], ("allow-new",)),
        ([*convert, "--num-classes=-1"], ("num_classes", "num-classes")),
        ([*convert, "--num-classes=ten"], ("num-classes",)),
        ([*convert, "--rgb-to-gray", "--model=pacavit_nano_gray"], ("pacavit_nano_gray",)),
        (["convert", "classifier.safetensors", "new.onnx"], ("new.onnx",)),
        (["convert", "classifier.safetensors"], ("DESTINATION",)),
        (["prepare"], ("name",)),
        (["prepare", "no_such_data_set"], ("no_such_data_set",)),
        (["prepare", "../scenes"], ("../scenes",)),
        (["convert-records", "."], (".",)),
        ([*plan[:2], "--topology=v9:2x2"], ("v9", "topology")),
        ([*plan[:2], "--topology=v5e:0x2"], ("v5e:0x2", "topology")),
        ([*plan[:2], "--topology="], ("topology",)),
        ([*plan[:2], "--topology=v5e:99999999x99999999"], ("v5e", "topology")),
    ):
        yield Case(
            kind,
            " ".join(part for part in run if not part.startswith("--config.") or part in run[-1:])[-90:],
            there,
            run,
            names,
        )

    kind = "a tuple flag given twice"
    for key, value in (
        ("augment.crop_scale", "(0.5,1.0)"),
        ("augment.crop_ratio", "(0.5,1.5)"),
        ("test.scales", "(1.0,)"),
        ("profile_steps", "(1,2)"),
        ("init_allow_new", "('head',)"),
    ):
        flag = f"--config.{key}={value}"
        yield Case(
            kind,
            key,
            nothing,
            train(flag, flag),
            (key.rpartition(".")[2],),
            loads="the last one alone counts, as for other flags",
        )

    kind = "sizes on command lines"
    for flags, names in (
        (["--num-classes=1000000000000", "--allow-new=head"], ("num_classes", "num-classes")),
        (["--clusters=1000000000,4,4,0", "--allow-new=clustering"], ("clusters",)),
        (["--clusters=4,4,4,99999999999999999999", "--allow-new=clustering"], ("clusters",)),
        (["--num-classes=99999999999999999999", "--allow-new=head"], ("num_classes", "num-classes")),
        (["--image-size=99999999999999999999"], ("image_size", "image-size")),
    ):
        yield Case(kind, f"convert {flags[0]}", there, [*convert, *flags], names)
    for flags in (["--image-size=1000000000"], ["--image-size=100000"]):
        yield Case(
            kind,
            f"predict {flags[0]}",
            there,
            predict("classifier.safetensors", "a.png", flags=flags),
            ("image_size", "image-size"),
        )
