"""A record of a data set's list: values are asked for by the kind that they must have."""

from __future__ import annotations

from math import isfinite

from manifests.errors import InputError

SHOWN = 60  # characters of a wrong value in a message


class Row(dict):
    """The columns of a record, and in words where it stands.

    A getter gives None, or an empty list or object, where there is nothing, and raises `InputError` with the
    place where there is something else: data sets are written by others.
    """

    def __init__(self, values: dict, where: str):
        super().__init__(values)
        self.where = where

    def text(self, name: str) -> str | None:
        value = self._get(name, str, "a text")
        if value and ("\0" in value or value != _storable(value)):
            raise self.wrong(name, "a text (it holds a zero byte, or half a character)")
        return value

    def number(self, name: str) -> float:
        """A finite number, or digits of one; it must be there."""
        return _number(self.get(name), lambda: self.wrong(name, "a number"))

    def numbers(self, name: str, num: int) -> list[float]:
        """Exactly `num` numbers."""
        values = self._get(name, list, f"{num} numbers")
        if values is None or len(values) != num:
            raise self.wrong(name, f"{num} numbers")
        return [_number(value, lambda: self.wrong(name, f"{num} numbers")) for value in values]

    def texts(self, name: str) -> list[str | None]:
        values = self._get(name, list, "a list of texts") or []
        return [Row({name: value}, self.where).text(name) for value in values]

    def object(self, name: str) -> Row:
        return Row(self._get(name, dict, "an object") or {}, f"{name} of {self.where}")

    def objects(self, name: str) -> list[Row]:
        values = self._get(name, list, "a list of objects") or []
        return [Row({name: value}, self.where).object(name) for value in values]

    def wrong(self, name: str, kind: str) -> InputError:
        return InputError(f"{self.where}: {name} is {_storable(str(self.get(name))[:SHOWN])!r}, not {kind}")

    def _get(self, name: str, kind: type, words: str):
        value = self.get(name)
        value = None if value != value else value  # a table that pandas wrote has NaN where there is no text
        if value is not None and not isinstance(value, kind):
            raise self.wrong(name, words)
        return value


def _storable(text: str) -> str:
    return text.encode(errors="replace").decode()


def _number(value, wrong) -> float:
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if not isfinite(number):
        raise wrong()
    return number
