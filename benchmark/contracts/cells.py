"""Cells of a source's columns, whatever the file format: encoded pictures, or arrays of label numbers."""

from typing import Any

import numpy as np

from benchmark.contracts.plugins import Cell


def picture_bytes(value: dict[str, Any] | bytes | None) -> bytes:
    """Return the encoded picture of a cell that holds bytes or a struct of them; empty where it is null."""
    inside = value.get("bytes") if isinstance(value, dict) else value
    return inside or b""


def as_cell(value: Any) -> Cell:
    """Return an encoded picture, or an array of nested lists; what is neither becomes an array no condition takes."""
    if value is None or isinstance(value, dict | bytes):
        return picture_bytes(value)
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different lengths
        return np.empty(0, object)
    return array if array.dtype.kind in "biuf" else np.empty(0, object)


def as_caption(value: Any) -> str | None:
    """Return the text of a caption's cell, of several the first; None where there is none.

    Raises:
        ValueError: It is neither a text nor a number nor a list of them.
    """
    if isinstance(value, list | tuple):
        return as_caption(value[0]) if value else None
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return str(value)
    raise ValueError(f"a caption is a text, not {type(value).__name__}")


def caption_cell(value: Any) -> tuple[str | None, str | None]:
    """Return the text of a caption's cell, and why it could not be read; either may be None."""
    try:
        return as_caption(value), None
    except ValueError as error:
        return None, f"the caption cannot be read ({error})"
