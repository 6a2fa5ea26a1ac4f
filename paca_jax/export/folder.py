"""The folder of an export: the program, `export.json` and `certificate.json`."""

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import PyTree

from paca_jax.export.certification.certificate import Certificate, certify
from paca_jax.export.description import describe
from paca_jax.export.program import Program, make_program
from paca_jax.files import check_new_folder, write_file

DESCRIPTION, CERTIFICATE = "export.json", "certificate.json"


class Format(NamedTuple):
    """A form of programs.

    Attributes:
        file: the name of a program's file.
        convert: returns the content of that file.
        detector_batch: how many images a detector's program takes at once; None for any number.
    """

    file: str
    convert: Callable[[Program], bytes]
    detector_batch: int | None


def write_export(
    model: Any,
    variables: PyTree,
    folder: str | os.PathLike[str],
    class_names: Sequence[str] | None,
    size: tuple[int, int] | None,
    weight_dtype: str,
    form: Format,
) -> Certificate:
    """Writes the folder of an export once its program was run without this library and compared with the model.

    Args:
        model: the model.
        variables: its variables.
        folder: the folder, new or empty.
        class_names: the names of its classes, or None.
        size: of a detector's images, or None.
        weight_dtype: the type of kernels in the file.
        form: the form of the program.

    Raises:
        UserError: as for `stablehlo`. Nothing is left in the folder then.
    """
    place = check_new_folder(folder)
    program = make_program(model, variables, size, weight_dtype, form.detector_batch)
    description = describe(program, form.file, class_names)
    content = form.convert(program)
    with tempfile.TemporaryDirectory(prefix="paca-export-") as temporary:
        local = Path(temporary) / form.file
        local.write_bytes(content)
        certificate = certify(program, local, model, variables)
    # Names of classes that are no text have lone surrogates, which JSON can hold, but not UTF-8.
    described = description.encode(errors="backslashreplace")
    files = {form.file: content, DESCRIPTION: described, CERTIFICATE: certificate.to_json().encode()}
    try:
        for name, data in files.items():
            write_file(place / name, data)
    except BaseException:
        for name in files:
            (place / name).unlink(missing_ok=True)
        raise
    return certificate
