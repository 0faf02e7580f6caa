"""The package as others get it: a wheel, unpacked elsewhere, that does its work without the checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RECIPES = [path for path in (ROOT / "datasets").iterdir() if path.suffix in (".toml", ".md")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy, so that nothing is left in the checkout."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "benchmark", source / "benchmark", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    (source / "datasets").mkdir()
    for path in RECIPES:
        shutil.copy(path, source / "datasets")
    words = ["pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(out), str(source)]
    subprocess.run([sys.executable, "-m", *words], check=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run(unpacked: Path, cwd: Path, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    done = subprocess.run(
        [sys.executable, *words], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_every_file_of_the_package_and_no_other(wheel: Path) -> None:
    files = (path for path in (ROOT / "benchmark").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    wanted = {path.relative_to(ROOT).as_posix() for path in files} | {f"benchmark/recipes/{p.name}" for p in RECIPES}
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == wanted


def test_the_wheel_works_elsewhere(unpacked: Path, photos: Path, tmp_path: Path) -> None:
    place = run(unpacked, tmp_path, "-c", "import benchmark; print(benchmark.__file__)")
    assert Path(place.strip()).is_relative_to(unpacked)
    assert "study run smoke" in run(unpacked, tmp_path, "-m", "benchmark")
    assert "ade20k-seg" in run(
        unpacked, tmp_path, "-c", "from benchmark.engine import recipes; print(recipes.recipe_names())"
    )
    assert "smoke: " in run(unpacked, tmp_path, "-m", "benchmark.study", "list")
    words = ["--cond", "canny", "--source", f"folder:{photos}", "--workers", "1", "--out", "out"]
    assert "built out" in run(unpacked, tmp_path, "-m", "benchmark.build", *words)
    assert (tmp_path / "out" / "manifest.json").exists()
