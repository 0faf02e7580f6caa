"""A folder of images, one PNG a key or more, with `images.json` on how they were made; or another system's, without."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from benchmark.base.errors import UserError, did_you_mean
from benchmark.base.files import canonical_json, replace_file, sha256, sha256_file, short_name
from benchmark.base.forms import checked
from benchmark.base.images import BadImage, check_sums, decode_rgb, encode_png
from benchmark.contracts.records import Imaging
from benchmark.engine.bases import BUNDLED, Base
from benchmark.engine.datasets import BuiltDataset
from benchmark.engine.runs import IMAGES, read_finished
from benchmark.engine.stored import Stored

PROMPTS = ("full", "none", "insufficient", "conflicting")
PER_CONDITION = "num_images_per_condition"
_LONGEST_NAME = 233  # of the 255 bytes that file systems allow: `replace_file` adds 18 while it writes, .png is 4
_INSUFFICIENT = "a high-quality, detailed, and professional image"  # arXiv 2302.05543, section 4.2


@dataclass(frozen=True)
class Reference:
    """The samples of a split that images are generated for and compared with, in key order.

    Attributes:
        keys: N keys.
        captions: N texts, empty where there is none.
        pictures: N encoded pictures.
        maps: N encoded maps of one condition.
    """

    keys: tuple[str, ...]
    captions: tuple[str, ...]
    pictures: Sequence[bytes]
    maps: Sequence[bytes]

    def images(self, rows: slice = slice(None)) -> NDArray[np.uint8]:
        """Return the pictures of some samples, uint8 (N, R, R, 3)."""
        return np.stack([decode_rgb(data) for data in self.pictures[rows]])


def load_reference(dataset: BuiltDataset, split: str, condition: str, limit: int | None) -> Reference:
    """Return the first `limit` samples of a split (default: all) with their maps of a condition."""
    rows = sorted(dataset.located(split, ["key", "caption"]), key=lambda each: str(each[1]["key"]))[:limit]
    places = tuple(place for place, _ in rows)
    return Reference(
        keys=tuple(row["key"] for _, row in rows),
        captions=tuple(row["caption"] or "" for _, row in rows),
        pictures=Stored(places, "image"),
        maps=Stored(places, f"cond_{condition}"),
    )


def prompts(setting: str, captions: Sequence[str]) -> list[str]:
    """Return the prompts of one of the four settings of the paper's ablation (arXiv 2302.05543, section 4.2).

    "full" is the caption, "none" the empty text, "insufficient" the paper's words, which say nothing of the content,
    and "conflicting" the caption of the sample half the set away: like the paper's "delicious cake" it asks for
    something else than the condition shows, but for something that the base can draw.

    Raises:
        UserError: Conflicting prompts are wanted, but captions are all alike.
    """
    if setting == "conflicting":
        if len(set(captions)) < 2:
            raise UserError("conflicting prompts need captions that differ; these samples have none, or one for all")
        half = max(1, len(captions) // 2)
        return [*captions[half:], *captions[:half]]
    return {"full": list(captions), "none": [""] * len(captions), "insufficient": [_INSUFFICIENT] * len(captions)}[
        setting
    ]


def shuffled_step(setting: str, count: int) -> int:
    """Return how many samples away, of `count`, the map lies that the anchor `shuffled` holds an image against.

    Half the set, and one more with conflicting prompts: those are the captions of the very samples half the set away.
    """
    half = max(1, count // 2)
    return half + 1 if setting == "conflicting" and count > 2 else half


def image_path(folder: Path, key: str) -> Path:
    """Return where the image of a key is kept: percent-encoded, so that any key is safe, and cut if long."""
    return folder / f"{short_name(quote(key, safe=''), _LONGEST_NAME)}.png"


def numbered(config: dict[str, Any]) -> int:
    """Return how many images of each sample `generate` made under numbers, 0 where it made one without."""
    return int(config["sampling"].get(PER_CONDITION, 0))


def image_names(keys: Sequence[str], count: int) -> list[str]:
    """Return the names of images: ``KEY_0``, ``KEY_1``, ... for so many of each key; the keys for a count of 0."""
    return [f"{key}_{i}" for key in keys for i in range(count)] if count else list(keys)


def write_image(folder: Path, key: str, image: NDArray[np.uint8]) -> None:
    """Keep an image uint8 (H, W, 3) of a key, atomically."""
    replace_file(image_path(folder, key), encode_png(image))


def refuse_missing(folder: Path, keys: Sequence[str]) -> None:
    """Refuse a folder that lacks the image of some key.

    Raises:
        UserError: How many are missing, and the first of them.
    """
    missing = [key for key in keys if not image_path(folder, key).exists()]
    if missing:
        first = image_path(folder, missing[0]).name
        raise UserError(
            f"{folder} lacks {len(missing)} of {len(keys)} images, the first is {first}; generate them again"
        )


def read_images(folder: Path, keys: Sequence[str], resolution: int) -> NDArray[np.uint8]:
    """Return the images of keys, uint8 (N, R, R, 3), in their order.

    Raises:
        UserError: Images are missing, unreadable or of another size.
    """
    refuse_missing(folder, keys)
    images = []
    for key in keys:
        try:
            data = image_path(folder, key).read_bytes()
            images.append(decode_rgb(data))
            check_sums(data)
        except BadImage as error:
            raise UserError(f"{image_path(folder, key)}: {error}; delete it and generate again") from None
        if images[-1].shape[:2] != (resolution, resolution):
            raise UserError(
                f"{image_path(folder, key)} is {images[-1].shape[:2]} pixels, not {resolution} x {resolution}"
            )
    return np.stack(images)


@dataclass(frozen=True)
class ImageSet:
    """One image of each of N samples, in a folder.

    Attributes:
        folder: Where they are.
        names: Their names, without the suffix.
    """

    folder: Path
    names: tuple[str, ...]

    @cached_property
    def content(self) -> str:
        """A hash over names and files."""
        return sha256(canonical_json([[name, sha256_file(image_path(self.folder, name))] for name in self.names]))


def image_sets(folder: Path, keys: Sequence[str]) -> list[ImageSet]:
    """Return the images of keys as sets: of ``KEY.png`` one, of ``KEY_0.png``, ``KEY_1.png`` several.

    Raises:
        UserError: Images are missing, or keys have different numbers of them.
    """
    count = numbered(read_config(folder)) if is_generated(folder) else _images_per_key(folder, keys)
    endings = [f"_{i}" for i in range(count)] or [""]
    sets = [ImageSet(folder, tuple(f"{key}{ending}" for key in keys)) for ending in endings]
    for each in sets:
        refuse_missing(folder, each.names)
    return sets


def _images_per_key(folder: Path, keys: Sequence[str]) -> int:
    """Return how many numbered images a folder holds for each key, 0 where they are not numbered."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder of images")
    if any(image_path(folder, key).exists() for key in keys):
        return 0
    count = 0
    while any(image_path(folder, f"{key}_{count}").exists() for key in keys):
        count += 1
    return count


def is_generated(folder: Path) -> bool:
    """Whether `generate` made a folder, so that it says itself what it holds."""
    return (folder / IMAGES).exists()


def foreign_config(
    folder: Path, dataset: BuiltDataset, split: str, condition: str, floor: Path, base: Base
) -> dict[str, Any]:
    """Return what is known of images another system made for a split: all of it, in the words of `generate`.

    How they were sampled is not, so they are compared with others of their kind that share the floor.

    Raises:
        UserError: Images of some key are missing.
    """
    described, keys = dataset.condition(condition), _keys(dataset, split)
    per_key = max(1, _images_per_key(folder, keys))
    return {
        "dataset": {"name": dataset.name, "path": str(dataset.folder), "fingerprint": dataset.fingerprint(split)},
        "split": split,
        "samples": {"n": len(keys), "sha256": sha256(canonical_json(keys))},
        "prompts": "unknown",
        "sampling": {"images_per_sample": per_key, "floor": _floor_identity(floor, keys)},
        "base": {"name": base.name, "weights_sha256": base.weights_sha256},
        "condition": described,
        "control": {"name": folder.resolve().name, "images_sha256": _content(folder, keys)},
    }


def check_floor(floor: Path, config: dict[str, Any]) -> None:
    """Refuse a floor made by `generate` for other samples than another system's images.

    Raises:
        UserError: Such a floor, or one that was drawn with control.
    """
    if not is_generated(floor):
        return
    made = read_config(floor)
    if made["control"] is not None:
        raise UserError(f"{floor} was drawn with control; give images without")
    wanted = (config["dataset"]["fingerprint"], config["split"], config["samples"])
    if (made["dataset"]["fingerprint"], made["split"], made["samples"]) != wanted:
        raise UserError(f"{floor} holds other samples than {config['samples']['n']} of {config['split']}")


def _floor_identity(floor: Path, keys: Sequence[str]) -> Any:
    return comparable(read_config(floor)) if is_generated(floor) else _content(floor, keys)


def _keys(dataset: BuiltDataset, split: str) -> list[str]:
    return sorted(str(row["key"]) for row in dataset.rows(split, ["key"]))


def _content(folder: Path, keys: Sequence[str]) -> str:
    """Return a hash over another system's images of keys; they must all be there."""
    count = _images_per_key(folder, keys)
    names = image_names(keys, count)
    refuse_missing(folder, names)
    others = sorted({path.name for path in folder.glob("*.png")} - {image_path(folder, name).name for name in names})
    if others:
        raise UserError(
            f"{folder} holds {len(others)} images of no sample, the first is {others[0]}; "
            "allowed: KEY.png for every key, or KEY_0.png, KEY_1.png, ... as many for each"
        )
    return ImageSet(folder, tuple(names)).content


def read_config(folder: Path) -> dict[str, Any]:
    """Return how the images of a finished folder were made."""
    config: dict[str, Any] = read_finished(folder, IMAGES)["config"]
    checked(Imaging, config, f"{folder / IMAGES}", "delete it and generate again")
    return config


def steering(conditions: Sequence[dict[str, Any]], controls: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return how a configuration names what steers: one condition and control, or a list and the parts of a sum."""
    if len(controls) == 1:
        return {"condition": conditions[0], "control": controls[0]}
    name = "+".join(str(control["name"]) for control in controls)
    return {"condition": list(conditions), "control": {"name": name, "parts": list(controls)}}


def scored_by(config: dict[str, Any], name: str | None) -> dict[str, Any]:
    """Return a configuration with the one condition its images are scored by.

    Raises:
        UserError: Several steered, and none or another was named.
    """
    conditions = config["condition"] if isinstance(config["condition"], list) else [config["condition"]]
    names = [str(condition["name"]) for condition in conditions]
    if name is None and len(names) > 1:
        raise UserError(f"these images follow several conditions; score one with --cond, allowed: {', '.join(names)}")
    if name is not None and name not in names:
        raise UserError(f'these images do not follow "{name}"; {did_you_mean(name, names)}')
    return {**config, "condition": conditions[names.index(name) if name else 0]}


def without_control(config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of the base's own images for the same samples, prompts and noise."""
    sampling = {**config["sampling"], "conditioning_scale": 1.0, "control_weighting": "uniform"}  # nothing is scaled
    return {**config, "sampling": sampling, "control": None, "condition": None}


def comparable(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration without what changes no image: where dataset and base lie, and the batch."""
    dataset = {key: value for key, value in config["dataset"].items() if key != "path"}
    kept = {key: value for key, value in config.items() if key != "batch"}
    return {**kept, "dataset": dataset, "base": comparable_base(config["base"])}


def comparable_base(base: dict[str, Any]) -> dict[str, Any]:
    """Return a base without the folder or hub id it was loaded from: its weights tell it."""
    return base if base["name"] in BUNDLED else {"weights_sha256": base["weights_sha256"]}


def default_folder(config: dict[str, Any], root: Path) -> Path:
    """Return the folder images of this configuration go to: named for people, and by hash."""
    control = config["control"]
    label = "no_control" if control is None else control["name"]
    digest = sha256(canonical_json({**comparable(config), "base": config["base"]}))[:8]
    return root / f"{config['dataset']['name']}_{config['split']}_{label}_{digest}"
