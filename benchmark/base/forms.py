"""Read files from outside into what they should hold: TOML tables, and dataclasses whose fields have their types."""

import dataclasses
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from benchmark.base.errors import UserError, did_you_mean
from benchmark.base.files import canonical_json, read_json

T = TypeVar("T")


def read_toml(path: Path) -> dict[str, Any]:
    """Return the document in a TOML file.

    Raises:
        UserError: The file is no TOML.
    """
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:  # of bytes that are no text, of huge numbers, of depth
        raise UserError(f"{path} is no TOML ({error}); mend it") from None


def read_form(kind: type[T], path: Path, remedy: str) -> T:
    """Return the dataclass that a JSON file holds.

    Raises:
        UserError: The file is missing, is no JSON, or holds other fields or types.
    """
    return checked(kind, read_json(path), str(path), remedy)


def checked(kind: type[T], value: Any, where: str, remedy: str) -> T:
    """Return a JSON value as a dataclass or typed dictionary, strictly: nothing is converted or left out.

    Raises:
        UserError: It holds other fields or types; the first of them is named.
    """
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        known = [field.name for field in dataclasses.fields(kind)]
        unknown = next((name for name in value if name not in known), None)
        if unknown is not None:
            raise UserError(f'{where} has an unknown field "{unknown}"; {did_you_mean(unknown, known)}; {remedy}')
    try:
        made: T = _adapter(cast(Any, kind)).validate_json(canonical_json(value), strict=True)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(map(str, fault["loc"])) or "all of it"
        raise UserError(f"{where} does not hold what it should ({place}: {fault['msg']}); {remedy}") from None
    return made


@lru_cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
