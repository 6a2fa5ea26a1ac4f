"""Converts a TFDS data set that is prepared as TFRecord to ArrayRecord, which has random access.

    paca convert-records FOLDER [--out FOLDER]

FOLDER is a version folder such as `DATA_DIR/imagenet2012/5.1.0`; it is not changed. The result has the same examples, bit for
bit, in the same order and the same shards. It takes as much disk space as the original.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paca_jax.command_line import Parser, command_line
from paca_jax.data.sources.dataset import quoted
from paca_jax.data.sources.tfds_files import INFO, log_interrupted, open_builder
from paca_jax.errors import UserError, one_line
from paca_jax.files import read_json, write_file
from paca_jax.paths import is_remote, user_path


def convert(folder: str | os.PathLike[str], out: str | os.PathLike[str] | None = None) -> Path:
    """Writes the ArrayRecord copy of a version folder; the copy appears complete or not at all.

    Args:
        folder: the version folder of a data set that is prepared as TFRecord.
        out: the version folder to write; by default the same place below `DATA_DIR_array_record` beside DATA_DIR.

    Returns:
        The new version folder.

    Raises:
        UserError: `folder` is not such a folder, is damaged or has no examples, or `out` exists or does not end with
            NAME/[CONFIG/]VERSION, or one of them is not on this machine.
    """
    folder = _local_path(folder)
    if not (folder / INFO).exists():
        raise UserError(
            f"Expected the version folder of a prepared TFDS data set, such as DATA_DIR/imagenet2012/5.1.0, {folder} has no "
            f"{INFO}. Give such a folder."
        )
    builder = open_builder(folder.absolute())
    found = builder.info.file_format
    if found is None or found.value != "tfrecord":
        kind = found.value if found else "an unknown format"
        raise UserError(f"Expected a data set that is prepared as tfrecord, {folder} holds {kind}. Give another folder.")
    splits = builder.info.splits.values()
    records = {os.fspath(path) for split in splits for path in split.filepaths}
    _check_splits(folder.absolute(), sum(split.num_examples for split in splits), records)
    if out is None:
        data_dir = _data_dir(folder.absolute(), folder)
        target = data_dir.with_name(f"{data_dir.name}_array_record") / folder.absolute().relative_to(data_dir)
    else:
        target = _local_path(out).absolute()
        _data_dir(target, folder)
    if target.exists():
        raise UserError(f"Expected no folder at {target}, found one. Delete it or name another with --out.")
    target.parent.mkdir(parents=True, exist_ok=True)
    log_interrupted(target.parent)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix="incomplete."))
    try:
        for split in splits:
            _convert_split(split, temporary)
        _write_metadata(folder, temporary, records)
        temporary.chmod(0o755)
        os.rename(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _local_path(typed: str | os.PathLike[str]) -> Path:
    path = os.fspath(user_path(typed))
    if is_remote(path):
        raise UserError(f"Expected a folder on this machine, got {path}. Copy it here, and back once it is converted.")
    return Path(path)


def _data_dir(version_folder: Path, prepared: Path) -> Path:
    """Returns DATA_DIR of a folder DATA_DIR/NAME/[CONFIG/]VERSION; the names are those of a prepared data set."""
    info = read_json(prepared / INFO)
    tail = Path(info["name"], info.get("configName", ""), info["version"])
    if version_folder.parts[-len(tail.parts) :] != tail.parts:
        raise UserError(
            f"Expected a folder that ends with {tail}, got {version_folder}. Rename it: TFDS finds the data set only there."
        )
    return version_folder.parents[len(tail.parts) - 1]


def _check_splits(folder: Path, num_examples: int, records: set[str]) -> None:
    """Checks that a version folder has examples, and no file of records that belongs to no split."""
    if num_examples < 1:
        raise UserError(f"Expected splits with examples in {folder / INFO}, got none. Prepare the data set again.")
    unlisted = sorted(path.name for path in folder.iterdir() if ".tfrecord" in path.name and os.fspath(path) not in records)
    if unlisted:
        raise UserError(
            f"Expected {folder / INFO} to list the splits of all records beside it, it does not list {quoted(unlisted[:3])}. "
            "Prepare the data set again."
        )


def _convert_split(split: Any, folder: Path) -> None:
    """Writes the shards of one split."""
    import tensorflow as tf
    from array_record.python.array_record_module import ArrayRecordWriter

    template = split.filename_template.replace(data_dir=folder, filetype_suffix="array_record")
    for index, length in enumerate(split.shard_lengths):
        source = split.filename_template.sharded_filepath(shard_index=index, num_shards=split.num_shards)
        target = template.sharded_filepath(shard_index=index, num_shards=split.num_shards)
        writer = ArrayRecordWriter(os.fspath(target), "group_size:1")
        written = 0
        try:
            for record in tf.data.TFRecordDataset(os.fspath(source)):
                writer.write(record.numpy())
                written += 1
        except (tf.errors.DataLossError, tf.errors.NotFoundError) as error:
            raise UserError(
                f"Expected the intact file {source}, reading example {written} of it failed ({type(error).__name__}). "
                "Prepare the data set again."
            ) from error
        finally:
            writer.close()
        if written != length:
            raise UserError(f"Expected {length} examples in {source}, found {written}. Prepare the data set again.")
        print(one_line(f"{source.name} -> {target.name}: {written} examples"), flush=True)


def _write_metadata(source: Path, target: Path, records: set[str]) -> None:
    """Copies all files but the records, and sets the new format."""
    for path in source.iterdir():
        if path.is_file() and path.name != INFO and os.fspath(path.absolute()) not in records:
            shutil.copyfile(path, target / path.name)
    info = read_json(source / INFO)
    info["fileFormat"] = "array_record"
    info.pop("alternativeFileFormats", None)
    write_file(target / INFO, json.dumps(info, indent=2, sort_keys=True))


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; `argv` is by default that of the process."""
    parser = Parser("paca convert-records", __doc__)
    parser.add_argument("folder", help="the version folder, such as DATA_DIR/imagenet2012/5.1.0")
    parser.add_argument("--out", help="the version folder to write")
    arguments = parser.parse_args(argv)
    with command_line():
        target = convert(arguments.folder, arguments.out)
        print(one_line(f"Done. Use it with dataset.data_dir={_data_dir(target.absolute(), target)}"))


if __name__ == "__main__":
    main()
