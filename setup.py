"""Puts the recipes of `datasets/` into the wheel, as `benchmark/recipes`; all else is said in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithRecipes(build_py):
    """Copies the package, then the recipes; an editable install reads them from `datasets/`."""

    def run(self) -> None:
        """Copy everything."""
        super().run()
        if self.editable_mode:
            return
        folder = Path(self.build_lib, "benchmark", "recipes")
        folder.mkdir(parents=True, exist_ok=True)
        for ending in ("toml", "md"):
            for path in Path("datasets").glob(f"*.{ending}"):
                shutil.copy(path, folder)


setup(cmdclass={"build_py": BuildWithRecipes})
