"""The error that bad input raises anywhere in the library."""

import difflib
import importlib
import unicodedata
from collections.abc import Iterable, Sequence

_FEW = 12  # known words that an error lists all
_DIRECTIONS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


class UserError(ValueError):
    """A bad name, shape, option or file, explained in one sentence.

    The message says what was expected, what came, and what to do. Command lines print it without a traceback and exit with
    status 2; in a notebook it is an ordinary `ValueError`.
    """


def check(holds: bool, message: str) -> None:
    """Raises a `UserError` with the message unless the condition holds."""
    if not holds:
        raise UserError(message)


def check_installed(user: str, packages: Iterable[str], remedy: str) -> None:
    """Checks that optional packages can be imported, and imports them.

    Args:
        user: what needs them, the subject of a sentence.
        packages: the names that they are imported by.
        remedy: how they are installed, as a command.

    Raises:
        UserError: if one is missing.
    """
    for name in packages:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            package = name.partition(".")[0]
            raise UserError(f"{user} needs the package {package}, which is not installed. Run {remedy}.") from error


def nearest(word: str, known: Sequence[str], listing: str = "") -> str:
    """Returns a clause for an error about an unknown word: the known words nearest to it, or a few of them if none is near.

    Args:
        word: the unknown word; the case of its letters does not count.
        known: the known words.
        listing: what lists all of them, to name in a clause that does not.
    """
    spelled = {name.lower(): name for name in known}
    matches = (difflib.get_close_matches(word.lower(), spelled, n=3, cutoff=cutoff) for cutoff in (0.6, 0.4))
    if near := [spelled[name] for name in next(filter(None, matches), [])]:
        return f"the nearest {'is' if len(near) == 1 else 'are'} {', '.join(near)}"
    if len(known) <= _FEW:
        return f"known are {', '.join(known)}"
    some = f"known are {len(known)}, such as {', '.join(known[:3])}"
    return f"{some}; {listing} lists all" if listing else some


def shorten(text: str, longest: int = 300) -> str:
    """Returns the first characters of a text, at most `longest` of them and a mark that there are more."""
    return text if len(text) <= longest else f"{text[:longest]}..."


def summary(error: BaseException, longest: int = 300) -> str:
    """Returns the message of another library's error on one line, or the name of its class, cut to `longest` characters."""
    return shorten(" ".join(str(error).split()) or type(error).__name__, longest)


def one_line(text: str) -> str:
    """Returns a text with everything escaped that would break a line or deceive its reader.

    These are control characters, line breaks, bytes of undecodable file names, and marks that reverse the direction of writing.
    """
    return "".join(repr(letter)[1:-1] if _breaks(letter) else letter for letter in text)


def _breaks(letter: str) -> bool:
    return unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(letter) in _DIRECTIONS
