"""Take samples in: read, resize and measure each picture, and part what is kept from what failed or was dropped."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from benchmark.base.files import utf8
from benchmark.base.images import BadImage, Transform, decode_rgb, encode_jpeg, encode_png, is_plain_jpeg
from benchmark.contracts.plugins import Images, Map, Sample
from benchmark.engine import hygiene
from benchmark.engine.plan import Plan
from benchmark.engine.shards import Lost, Quality

_MAX_CAPTION = 20_000
Copy = Callable[[Sample, Transform], dict[str, Map]]


@dataclass(frozen=True)
class Usable:
    """A sample whose image could be read, with the bytes to store, the pixels they decode to, and what was measured.

    The sample no longer holds its original image, nor its columns.
    """

    sample: Sample
    data: bytes
    pixels: Images
    transform: Transform
    copied: dict[str, Map]
    quality: Quality | None = None

    @property
    def tags(self) -> dict[str, Any]:
        """The sample's, with the transform that its image and its copied maps went through together."""
        return {**self.sample.tags, **({"transform": self.transform.record()} if self.copied else {})}


def sift(samples: Iterator[Sample], plan: Plan, copy: Copy) -> tuple[list[Usable], Lost]:
    """Part the samples that are kept from those that failed or did not pass a check.

    Args:
        samples: As the source reads them.
        plan: The dataset's.
        copy: Gives the maps that a sample's own columns hold, by condition.
    """
    usable, lost = [], Lost()
    for sample in samples:
        key, reason = utf8(sample.key), None
        try:
            prepared = _prepare(replace(sample, key=key), plan, copy)
            if plan.hygiene and prepared.quality:
                reason = hygiene.reason_to_drop(plan.hygiene, prepared.quality)
        except BadImage as error:
            if not hygiene.drops(plan.hygiene, hygiene.UNREADABLE):
                lost.failed[key] = utf8(str(error))
                continue
            reason = hygiene.UNREADABLE
        if reason:
            lost.dropped[key] = reason
        else:
            usable.append(prepared)
    return usable, lost


def _prepare(sample: Sample, plan: Plan, copy: Copy) -> Usable:
    """Resize and crop the image; keep the source's own JPEG where nothing changes, else JPEG; renders stay exact."""
    _check_texts(sample)
    source = sample.image
    pixels = decode_rgb(source) if isinstance(source, bytes) else source
    transform = Transform(pixels.shape[0], pixels.shape[1], plan.resolution)
    if transform.is_too_long:
        raise BadImage(f"{transform.width} x {transform.height} pixels are too narrow to be cropped to a square")
    small, copied = transform.apply(pixels), copy(sample, transform)
    if not isinstance(source, bytes):
        data = encode_png(small)
    elif transform.is_identity and is_plain_jpeg(source):
        data = source
    else:
        data = encode_jpeg(small)
        small = decode_rgb(data)
    caption = sample.caption if plan.captioner is None else "to be written"  # it may be, and is checked then
    quality = hygiene.measure(plan.hygiene, source, small, caption) if plan.hygiene else None
    rest = replace(sample, image=b"", columns={})  # a shard's originals together may be gigabytes
    return Usable(rest, data, small, transform, copied, quality)


def _check_texts(sample: Sample) -> None:
    """Refuse a sample that its source could not read, or whose caption no table should hold."""
    if sample.fault is not None:
        raise BadImage(sample.fault)
    caption = sample.caption or ""
    if len(caption) > _MAX_CAPTION:
        raise BadImage(f"a caption of {len(caption)} characters; at most {_MAX_CAPTION}")
    if utf8(caption) != caption:
        raise BadImage("a caption that is no text (half a surrogate pair)")
