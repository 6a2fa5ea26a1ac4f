"""Downloads a TFDS data set and prepares it as ArrayRecord.

    paca prepare NAME [--data_dir DIR]

The data set `scenes` is made from files of the repository. For data sets that TFDS cannot download itself, such as
imagenet2012, the error message says where to put the files that you download by hand.
"""

import difflib
import os
from collections.abc import Sequence
from typing import Any

from etils import epath

from paca_jax.command_line import Parser, command_line
from paca_jax.data.sources.tfds_files import INFO, check_format, find_builder, log_interrupted
from paca_jax.errors import UserError, one_line, summary
from paca_jax.fields import check_value
from paca_jax.paths import user_path


def prepare(name: str, data_dir: str | None = None) -> str:
    """Downloads and prepares a data set, unless it is prepared already.

    Args:
        name: "name" or "name/config" as in TFDS, or "scenes".
        data_dir: the folder of data sets, by default TFDS's own (`TFDS_DATA_DIR` or `~/tensorflow_datasets`).

    Returns:
        The folder of the prepared version.

    Raises:
        UserError: TFDS has no such data set, or needs files downloaded by hand or a package that is not installed; the folder
            holds the data set in another format; `data_dir` is no path; or the files that `scenes` is made from are missing.
    """
    check_value("the name of a data set", name, str)
    data_dir = None if data_dir is None else os.fspath(user_path(data_dir))
    found = find_builder(name, data_dir)
    if found is not None:
        check_format(name, found)
        return str(found.data_dir)
    builder = _builder(name, data_dir)
    log_interrupted(os.path.dirname(builder.data_dir))
    try:
        builder.download_and_prepare()
    except AssertionError as error:  # TFDS raises it if files must be downloaded by hand
        raise UserError(
            f"Expected files of {name!r} that must be downloaded by hand, found none: {summary(error, 5000)}"
        ) from error
    except ImportError as error:
        raise UserError(
            f"Expected the packages that preparing {name!r} needs, {error.name} is missing. Install it and run this again."
        ) from error
    if not (epath.Path(builder.data_dir) / INFO).exists():  # TFDS takes any folder for a prepared one
        raise UserError(f"Expected no part of a data set in {builder.data_dir}, found one. Delete it and run this again.")
    return str(builder.data_dir)


def _builder(name: str, data_dir: str | None) -> Any:
    import tensorflow_datasets as tfds

    options: dict[str, Any] = {"file_format": "array_record"} | ({} if data_dir is None else {"data_dir": data_dir})
    if name == "scenes":
        from paca_jax.data.scenes.builder import Scenes

        return Scenes(**options)
    try:
        return tfds.builder(name, **options)
    except tfds.core.DatasetNotFoundError as error:
        near = difflib.get_close_matches(name, tfds.list_builders(with_community_datasets=False), n=3)
        hint = f"The nearest are {', '.join(near)}" if near else "tfds.list_builders() lists them"
        raise UserError(f"Expected the name of a TFDS data set, got {name!r}. {hint}.") from error
    except (ValueError, RuntimeError) as error:  # an unknown config or version
        raise UserError(f"Expected a TFDS data set or data set/config, got {name!r} ({summary(error)}). Correct it.") from error


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; `argv` is by default that of the process."""
    parser = Parser("paca prepare", __doc__)
    parser.add_argument("name", help="the data set as TFDS names it, such as imagenet2012 or coco/2017")
    parser.add_argument("--data_dir", help="the folder of data sets (default: TFDS's own)")
    arguments = parser.parse_args(argv)
    with command_line():
        print(one_line(prepare(arguments.name, arguments.data_dir)))


if __name__ == "__main__":
    main()
