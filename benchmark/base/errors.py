"""The one error a user may see, and the suggestions that finish its sentence."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input: the message says in one line what was wrong, what is allowed and what to do; exit code 2."""


def first_line(error: BaseException) -> str:
    """Return the first line of what a library says went wrong, or the kind of its error where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """Return ``allowed: a, b, c`` with the closest match first, as the tail of an error message."""
    names = sorted(allowed)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f'did you mean "{close[0]}"? ' if close else ""
    return f"{hint}allowed: {', '.join(names) or 'none'}"
