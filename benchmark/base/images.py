"""Decode, transform and encode images: the one geometric transform that image and map share."""

import io
import re
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps

MAX_PIXELS = 64_000_000
MAX_BYTES = 256 * 2**20  # of an encoded image, or of anything else that comes with it
JPEG_QUALITY = 95
_LONGEST = 100  # times as long as wide
_ORIENTATION = 0x0112  # EXIF tag


class BadImage(Exception):
    """An image that cannot be used; the message is the reason in the ledger."""


@dataclass(frozen=True)
class Transform:
    """Scale the shorter side to `resolution`, then crop the centre; sizes in pixels."""

    height: int
    width: int
    resolution: int

    @property
    def is_identity(self) -> bool:
        """Whether the image already has the final size."""
        return self.height == self.width == self.resolution

    @property
    def _scale(self) -> float:
        return self.resolution / min(self.height, self.width)

    @property
    def _scaled(self) -> tuple[int, int]:
        """Height and width before the crop."""
        height, width = round(self.height * self._scale), round(self.width * self._scale)
        return max(self.resolution, height), max(self.resolution, width)

    @property
    def _corner(self) -> tuple[int, int]:
        """Top and left of the crop."""
        height, width = self._scaled
        return (height - self.resolution) // 2, (width - self.resolution) // 2

    @property
    def is_too_long(self) -> bool:
        """Whether an image is so narrow that, scaled, it would be huge before it is cropped."""
        ratio = max(self.height, self.width) / min(self.height, self.width)
        return ratio > _LONGEST or ratio * self.resolution**2 > MAX_PIXELS

    def apply(self, image: NDArray[np.uint8], interpolation: int = cv2.INTER_AREA) -> NDArray[np.uint8]:
        """Return the (resolution, resolution, ...) view of an (height, width, ...) array.

        Raises:
            BadImage: The array has another size: it does not belong to the image.
        """
        if image.shape[:2] != (self.height, self.width):
            given = " x ".join(map(str, image.shape[:2]))
            raise BadImage(f"{given} pixels, where the image has {self.height} x {self.width}")
        if self.is_identity:
            return image
        if self._scale > 1 and interpolation == cv2.INTER_AREA:
            interpolation = cv2.INTER_CUBIC
        scaled = cv2.resize(image, self._scaled[::-1], interpolation=interpolation)
        top, left = self._corner
        cropped = scaled[top : top + self.resolution, left : left + self.resolution]
        return np.ascontiguousarray(cropped, dtype=image.dtype)

    def record(self) -> dict[str, int]:
        """Return the source's size, the size after scaling, and the crop's corner, in pixels."""
        (height, width), (top, left) = self._scaled, self._corner
        return {
            "height": self.height,
            "width": self.width,
            "scaled_height": height,
            "scaled_width": width,
            "top": top,
            "left": left,
        }


def decode_rgb(data: bytes) -> NDArray[np.uint8]:
    """Return encoded bytes as upright uint8 (H, W, 3) RGB; transparency is laid on white.

    Raises:
        BadImage: The bytes are no image, are cut short, or hold more than MAX_PIXELS.
    """

    def read(image: Image.Image, upright: bool) -> NDArray[np.uint8]:
        if image.format == "JPEG" and image.mode == "RGB" and upright:
            with suppress(ValueError):  # of a stream that is damaged Pillow says whether it can be used
                pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data)  # as Pillow decodes it, in less time
                return pixels
        return np.asarray(_on_white(image))

    return _decoded(data, read)


def decode_levels(data: bytes) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Return encoded bytes as the levels they hold, upright: (H, W) of grey or (H, W, 3) of colours, never rescaled.

    Raises:
        BadImage: The bytes are no image, or have transparent pixels or no whole levels of 8 or 16 bits.
    """
    return _decoded(data, lambda image, _: _levels(image))


def _decoded(data: bytes, read: Callable[[Image.Image, bool], NDArray[Any]]) -> NDArray[Any]:
    """Return what is read of an opened image that was turned upright, if it was not stored so."""
    if not data:
        raise BadImage("empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of EXIF data that is damaged: the picture is not
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise BadImage(f"more than {MAX_PIXELS} pixels")
                upright = image.getexif().get(_ORIENTATION, 1) == 1
                if not upright:
                    ImageOps.exif_transpose(image, in_place=True)
                return read(image, upright)
    except BadImage:
        raise
    except Exception as error:  # Pillow raises many kinds for damaged data; all mean the same here
        reason = re.sub(r"<[^>]* at 0x[0-9a-f]+>", "data", str(error))  # the ledger must not hold an address
        raise BadImage(f"unreadable ({type(error).__name__}: {reason})".replace("\n", " ")) from None


def check_sums(data: bytes) -> None:
    """Hold an encoded picture to its own checksums, which decoding does not: a flipped bit may show another picture.

    Raises:
        BadImage: They do not fit; formats without checksums pass.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.verify()
    except Exception as error:  # as in decoding, Pillow raises many kinds
        raise BadImage(f"damaged ({type(error).__name__})") from None


def is_plain_jpeg(data: bytes) -> bool:
    """Whether bytes are an RGB JPEG that is stored upright: it can be kept as it is."""
    with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as image:
        warnings.simplefilter("ignore", UserWarning)
        try:
            return image.format == "JPEG" and image.mode == "RGB" and image.getexif().get(_ORIENTATION, 1) == 1
        except Exception:  # Pillow raises many kinds for damaged EXIF data, which is not to be kept
            return False


def orientation(data: bytes) -> int:
    """Return the EXIF orientation of an encoded image, 1 where it is stored upright or is no image."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged data is reported where it is decoded
        return 1


def _levels(image: Image.Image) -> NDArray[Any]:
    if image.mode in ("RGBA", "LA"):
        if image.getextrema()[-1] != (255, 255):
            raise BadImage("a map with transparent pixels")
        image = image.convert(image.mode[:-1])
    if image.mode in ("1", "P"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    if image.mode in ("L", "RGB"):
        return np.asarray(image)
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    raise BadImage(f"a map with pixels of mode {image.mode}, where grey or RGB of 8 bits or grey of 16 bits is allowed")


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        ground = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, layer).convert("RGB")
    if image.mode.startswith("I;16"):  # Pillow would clip 16-bit grey to white instead of scaling it
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise BadImage(f"pixels of mode {image.mode} have no fixed range")
    return image if image.mode == "RGB" else image.convert("RGB")


def encode_png(image: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    """Return an (H, W) or (H, W, 3) RGB array as PNG, losslessly."""
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    ok, buffer = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not ok:
        raise ValueError(f"cannot encode an array of shape {image.shape} and dtype {image.dtype} as PNG")
    return buffer.tobytes()


def encode_bilevel_png(mask: NDArray[np.bool_]) -> bytes:
    """Return an (H, W) mask as a one-bit PNG, True is white."""
    pixels = mask.astype(np.uint8) * np.uint8(255)
    ok, buffer = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_BILEVEL, 1])
    if not ok:
        raise ValueError(f"cannot encode a mask of shape {mask.shape} as PNG")
    return buffer.tobytes()


def encode_jpeg(image: NDArray[np.uint8]) -> bytes:
    """Return uint8 (H, W, 3) RGB as JPEG of quality 95 without chroma subsampling."""
    data: bytes = simplejpeg.encode_jpeg(image, quality=JPEG_QUALITY, colorsubsampling="444")
    return data


def recompressed(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Return an image (H, W, 3) as it is read after libjpeg saved it, colours at half the resolution."""
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=quality, colorsubsampling="420")
    saved: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colorspace="RGB")
    return saved


def blurred(image: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    """Return an image (H, W, 3) under a Gaussian of a standard deviation in pixels, mirrored at its edges."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101), np.uint8)


def encode_paletted_png(ids: NDArray[np.uint8], colours: NDArray[np.uint8]) -> bytes:
    """Return (H, W) ids with their (C, 3) RGB palette as one PNG: ids and colours at once."""
    picture = Image.frombytes("P", ids.shape[::-1], np.ascontiguousarray(ids).tobytes())
    picture.putpalette(colours.tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def decode_grey16(data: bytes) -> NDArray[np.uint16]:
    """Return the (H, W) levels of a 16-bit grey PNG."""
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture, dtype=np.uint16)


def decode_ids(data: bytes) -> NDArray[np.uint8]:
    """Return the (H, W) ids of a paletted or grey PNG."""
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture if picture.mode in ("P", "L") else picture.convert("L"))


def decode_own_ids(data: bytes, colours: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Return the (H, W) ids of a PNG whose palette begins with these (C, 3) RGB colours; None for any other image."""
    try:
        with Image.open(io.BytesIO(data)) as picture:
            if picture.mode != "P" or (picture.getpalette() or [])[: colours.size] != colours.ravel().tolist():
                return None
            return np.asarray(picture)
    except Exception:  # damaged data is reported where it is decoded
        return None
