"""Checks of the values in a COCO file.

Numbers are numbers of JSON: neither text nor true, and finite. A whole number may be written 7 or 7.0. Null is the same as
missing.
"""

from typing import Any, NoReturn

from paca_jax.errors import UserError

# A limit of coordinates and sides, in pixels: beyond any picture.
FAR = 1e6
_MAX_WHOLE = 2**63
_EXACT = 2**53  # floats below it are exact whole numbers
_SHOWN = 80  # characters of a value in a message


class CocoFields:
    """Returns values of entries of one file, or refuses the file in one sentence.

    Entries are the dicts in the lists "images", "annotations" and "categories"; `kind` is "image", "annotation" or "category".
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def refuse(self, expected: str, got: str, action: str = "Correct the file") -> NoReturn:
        """Raises the error of a wrong value."""
        raise UserError(f"Expected {expected} in the COCO file {self.path}, got {got}. {action}.")

    def by_id(self, entries: list[Any], kind: str) -> dict[int, dict[str, Any]]:
        """Returns the entries of a list by their ids, in order."""
        found: dict[int, dict[str, Any]] = {}
        for position, entry in enumerate(entries):
            given = entry.get("id") if isinstance(entry, dict) else entry
            number = whole(given)
            if number is None or not isinstance(entry, dict):
                where = f"{shown(given)} as the id of entry {position} of the {kind} list"
                self.refuse(f"a whole number as the id of every {kind}", where, _advice(given))
            if number in found:
                self.refuse(f"every {kind} to have a unique id", f"{kind} {number} twice")
            found[number] = entry
        return found

    def text(self, entry: dict[str, Any], key: str, kind: str) -> str:
        """Returns a text that is not blank."""
        value = entry.get(key)
        if not isinstance(value, str) or not value.strip() or "\0" in value or not _is_unicode(value):
            self.refuse(f"a string as {key!r} of {named(entry, kind)}", shown(value))
        return value

    def side(self, image: dict[str, Any], key: str) -> int:
        """Returns the height or the width of an image, in pixels."""
        value = whole(image.get(key))
        if value is None or not 0 < value < FAR:
            expected = f"a whole number of pixels, 1 or more, as the {key} of {named(image, 'image')}"
            self.refuse(expected, shown(image.get(key)), _advice(image.get(key)))
        return value

    def reference(self, annotation: dict[str, Any], key: str, known: dict[int, int]) -> int:
        """Returns the position of the image or the category that an annotation refers to."""
        value = annotation.get(key)
        number = value if type(value) is int else whole(value)
        if number is None or number not in known:
            self.refuse(f"the {key} of {named(annotation)} to be listed", shown(value), _advice(value))
        return known[number]

    def crowd(self, annotation: dict[str, Any]) -> bool:
        """Returns whether an annotation is a crowd; a missing "iscrowd" is 0."""
        value = annotation.get("iscrowd")
        if value is None:
            return False
        if whole(value) not in (0, 1):
            self.refuse(f"0 or 1 as the iscrowd of {named(annotation)}", shown(value), _advice(value))
        return value == 1

    def box(self, annotation: dict[str, Any]) -> list[float] | None:
        """Returns the left, top, width and height of an object; None if they are missing. A side may be 0 or negative."""
        box = annotation.get("bbox")
        if box is None:
            return None
        if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
            expected = f"a bbox of four numbers (left, top, width, height) in pixels of {named(annotation)}"
            self.refuse(expected, shown(box), _advice(*box if isinstance(box, list) else ()))
        return box

    def area(self, annotation: dict[str, Any]) -> float | None:
        """Returns the area of an object in pixels; None if it is missing."""
        area = annotation.get("area")
        if area is None:
            return None
        if not is_number(area, FAR**2) or area < 0:
            self.refuse(f"a number, 0 or more, as the area of {named(annotation)}", shown(area), _advice(area))
        return float(area)


def whole(value: Any) -> int | None:
    """Returns a whole number as an int; None for any other value."""
    if type(value) is float and value.is_integer() and abs(value) < _EXACT:
        return int(value)
    return value if type(value) is int and abs(value) < _MAX_WHOLE else None


def is_number(value: Any, limit: float = FAR) -> bool:
    """Returns whether a value is a finite number of a magnitude below a limit."""
    return type(value) in (int, float) and -limit < value < limit


def named(entry: dict[str, Any], kind: str = "annotation") -> str:
    """Returns "annotation 4 of image 2", or "image 2", for messages."""
    of_image = f" of image {shown(entry.get('image_id'))}" if kind == "annotation" else ""
    return f"{kind} {entry['id']}{of_image}"


def shown(value: Any) -> str:
    """Returns the text of a value in a message, cut short if it is long."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _advice(*values: Any) -> str:
    return "Write numbers without quotes" if any(isinstance(value, str) for value in values) else "Correct the file"


def _is_unicode(text: str) -> bool:
    """Returns whether a text has no surrogates, halves of a character, which JSON can hold."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
