"""JSON by schema out of model text, in words that a model can use to do better.

Servers that obey `response_format` answer valid by construction; this checks them anyway,
because some ignore it and all may be cut off. Of JSON Schema it knows what the schemas of this
package use; an unknown keyword is a bug and raises.
"""

from __future__ import annotations

import json

_TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float),
          "null": type(None)}
_KNOWN = {"type", "properties", "required", "additionalProperties", "items", "minItems", "maxItems", "minLength",
          "maxLength", "minimum", "maximum", "enum", "description"}


class InvalidAnswer(ValueError):
    """The answer cannot be used; the message is shown to the model."""


def parse_answer(text: str, schema: dict) -> dict:
    """The JSON object in `text`, checked against `schema`; `InvalidAnswer` says what is wrong."""
    start, end = text.find("{"), text.rfind("}")  # a fence or a sentence around it does no harm
    if start < 0:
        raise InvalidAnswer("the answer has no JSON object")
    try:
        value = json.loads(text[start : max(end + 1, start + 1)], parse_constant=_refuse, strict=False)
    except InvalidAnswer:
        raise
    except (ValueError, RecursionError) as error:  # also numbers of more digits than Python reads
        where = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        cut = "; it looks cut off" if not text.rstrip().endswith(("}", "```")) else ""
        what = getattr(error, "msg", "too deep or too large")
        raise InvalidAnswer(f"the answer is not JSON: {what}{where}{cut}") from None
    if problem := find_problem(value, schema):
        raise InvalidAnswer(problem)
    return _clean(value)


def clean_text(text: str) -> str:
    """Text that can be stored: half surrogate pairs, which JSON can escape, become question marks."""
    return text.encode("utf-8", "replace").decode()


def _clean(value):
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, list):
        return [_clean(v) for v in value]
    return {clean_text(k): _clean(v) for k, v in value.items()} if isinstance(value, dict) else value


def find_problem(value: object, schema: dict, where: str = "the answer") -> str:
    """First way in which `value` breaks `schema`, as a sentence; empty when it holds."""
    assert not set(schema) - _KNOWN, f"keyword not known here: {set(schema) - _KNOWN}"
    kinds = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    if not any(_is(value, kind) for kind in kinds):
        return f"{where} must be {' or '.join(kinds)}, it is {_kind(value)}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{where} must be one of {', '.join(map(str, schema['enum']))}"
    if isinstance(value, dict):
        return _object_problem(value, schema, where)
    if isinstance(value, list):
        return _size_problem(len(value), schema, "minItems", "maxItems", "items", where) or next(
            filter(None, (find_problem(v, schema["items"], f"{where}[{i}]") for i, v in enumerate(value))), "")
    if isinstance(value, str):
        return _size_problem(len(value.strip()), schema, "minLength", "", "characters", where) or _size_problem(
            len(value), schema, "", "maxLength", "characters", where)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _size_problem(value, schema, "minimum", "maximum", "", where)
    return ""


def _object_problem(value: dict, schema: dict, where: str) -> str:
    properties = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            return f"{where} lacks the field {name!r}"
    if schema.get("additionalProperties") is False and (unknown := set(value) - set(properties)):
        return f"{where} has a field {min(unknown)[:40]!r} that was not asked for"
    problems = (find_problem(value[n], s, f"{n!r}") for n, s in properties.items() if n in value)
    return next(filter(None, problems), "")


def _size_problem(size: float, schema: dict, low: str, high: str, unit: str, where: str) -> str:
    if low in schema and size < schema[low]:
        return f"{where} must be at least {schema[low]} {unit}".rstrip() + f", it is {size}"
    if high in schema and size > schema[high]:
        return f"{where} must be at most {schema[high]} {unit}".rstrip() + f", it is {size}"
    return ""


def _is(value: object, kind: str) -> bool:
    if kind in ("integer", "number") and isinstance(value, bool):
        return False
    return isinstance(value, _TYPES[kind])


def _kind(value: object) -> str:
    return next((kind for kind in ("boolean", *_TYPES) if _is(value, kind)), "unknown")


def _refuse(constant: str) -> None:
    raise InvalidAnswer(f"{constant} is not a JSON number")


def obj(**properties: dict) -> dict:
    """Schema of an object that has exactly these fields, in this order."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def text(max_length: int, min_length: int = 1) -> dict:
    """Schema of a string; the bound keeps a model that runs away from filling its whole budget."""
    return {"type": "string", "minLength": min_length, "maxLength": max_length}


def whole(low: int, high: int) -> dict:
    return {"type": "integer", "minimum": low, "maximum": high}


def many(items: dict, low: int, high: int) -> dict:
    return {"type": "array", "items": items, "minItems": low, "maxItems": high}


def choice(*values: str) -> dict:
    return {"type": "string", "enum": list(values)}


YES_NO = {"type": "boolean"}
