"""Recipes of data sets: `datasets/<name>.toml` holds what would be typed to build one, and whom to credit."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from benchmark.base.errors import UserError, did_you_mean
from benchmark.base.forms import read_toml

# Recipes of the folder one works in come first, then those of the checkout, or of the wheel (setup.py).
_PACKAGE = Path(__file__).parents[1]
_FOLDERS = (Path("datasets"), _PACKAGE.parent / "datasets", _PACKAGE / "recipes")


@dataclass(frozen=True)
class Recipe:
    """A filled form; its card for people is the `.md` file beside it.

    Attributes:
        title: What it is, in a line.
        homepage: Hub id of the data, or the name it is known by.
        licence: Terms of images, maps and captions; what could not be verified is said.
        citation: BibTeX.
        columns: Every column of the source that is used, and what it holds.
        build: Options of `build` by name, as they would be typed; a list where one may be given again.
    """

    title: str
    homepage: str
    licence: str
    citation: str
    columns: dict[str, str]
    build: dict[str, str | list[str]]

    @property
    def credit(self) -> str:
        """Licence and citation, for the card of a built dataset."""
        return f"Source: {self.title} ({self.homepage}). Licence: {self.licence.strip()}\n\n{_fenced(self.citation)}\n"


def recipe_names() -> list[str]:
    """Return the names of the recipes there are."""
    return sorted({path.stem for folder in _FOLDERS for path in folder.glob("*.toml")})


def read_recipe(name: str) -> Recipe:
    """Return a recipe by its name, or by the path of its file.

    Raises:
        UserError: There is none, or its form is not filled as it has to be.
    """
    path = _find(name)
    form = read_toml(path)
    known = [field.name for field in fields(Recipe)]
    for key in form:
        if key not in known:
            raise UserError(f'{path} has an unknown entry "{key}"; {did_you_mean(key, known)}')
    for key in known:
        if not form.get(key) or not isinstance(form[key], dict if key in ("columns", "build") else str):
            raise UserError(f"{path}: the entry {key} is not filled; a recipe needs {', '.join(known)}")
    for key, value in form["build"].items():
        if not all(isinstance(text, str) for text in (value if isinstance(value, list) else [value])):
            raise UserError(f'{path}: the option {key}: a recipe holds text as it would be typed, such as "{value}"')
    return Recipe(**form)


def _find(name: str) -> Path:
    candidates = [Path(name)] if name.endswith(".toml") else [folder / f"{name}.toml" for folder in _FOLDERS]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise UserError(f'no recipe "{name}"; {did_you_mean(name, recipe_names())}; or give --cond and --source')
    return found


def _fenced(text: str) -> str:
    return f"```\n{text.strip()}\n```"


def preset(given: dict[str, Any]) -> dict[str, str | list[str]]:
    """Return the options that the recipe among given ones sets; none where no recipe was given.

    Raises:
        UserError: Other conditions were given without annotators; the recipe's are in the order of its own.
    """
    if not given.get("recipe"):
        return {}
    options = read_recipe(given["recipe"]).build
    if "cond" in given and "annotator" in options and "annotator" not in given:
        raise UserError(
            f"--cond replaces the conditions of the recipe {given['recipe']}, and its annotators are for those; give "
            f"--annotator too"
        )
    return options
