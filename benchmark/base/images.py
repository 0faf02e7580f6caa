"""Decode, transform and encode images: the one geometric transform that image and map share."""

import io
import re
import warnings
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps

MAX_PIXELS = 64_000_000
JPEG_QUALITY = 95
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

    def apply(self, image: NDArray[np.uint8], interpolation: int = cv2.INTER_AREA) -> NDArray[np.uint8]:
        """Return the (resolution, resolution, ...) view of an (height, width, ...) array."""
        if self.is_identity:
            return image
        scale = self.resolution / min(self.height, self.width)
        size = (max(self.resolution, round(self.width * scale)), max(self.resolution, round(self.height * scale)))
        if scale > 1 and interpolation == cv2.INTER_AREA:
            interpolation = cv2.INTER_CUBIC
        scaled = cv2.resize(image, size, interpolation=interpolation)
        top, left = (size[1] - self.resolution) // 2, (size[0] - self.resolution) // 2
        cropped = scaled[top : top + self.resolution, left : left + self.resolution]
        return np.ascontiguousarray(cropped, dtype=image.dtype)


def decode_rgb(data: bytes) -> NDArray[np.uint8]:
    """Return encoded bytes as upright uint8 (H, W, 3) RGB; transparency is laid on white.

    Raises:
        BadImage: The bytes are no image, are cut short, or hold more than MAX_PIXELS.
    """
    if not data:
        raise BadImage("empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise BadImage(f"more than {MAX_PIXELS} pixels")
                upright = ImageOps.exif_transpose(image)
                return np.asarray(_on_white(upright))
    except BadImage:
        raise
    except Exception as error:  # Pillow raises many kinds for damaged data; all mean the same here
        reason = re.sub(r"<[^>]* at 0x[0-9a-f]+>", "data", str(error))  # the ledger must not hold an address
        raise BadImage(f"unreadable ({type(error).__name__}: {reason})".replace("\n", " ")) from None


def is_plain_jpeg(data: bytes) -> bool:
    """Whether bytes are an RGB JPEG that is stored upright: it can be kept as it is."""
    with Image.open(io.BytesIO(data)) as image:
        return image.format == "JPEG" and image.mode == "RGB" and image.getexif().get(_ORIENTATION, 1) == 1


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        ground = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, layer).convert("RGB")
    if image.mode.startswith("I;16"):  # Pillow would clip 16-bit grey to white instead of scaling it
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise BadImage(f"pixels of mode {image.mode} have no fixed range")
    return image.convert("RGB")


def encode_png(image: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    """Return an (H, W) or (H, W, 3) RGB array as PNG, losslessly."""
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    ok, buffer = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not ok:
        raise ValueError(f"cannot encode an array of shape {image.shape} and dtype {image.dtype} as PNG")
    return buffer.tobytes()


def encode_bilevel_png(mask: NDArray[np.bool_]) -> bytes:
    """Return an (H, W) mask as a one-bit PNG, True is white."""
    pixels = np.where(mask, np.uint8(255), np.uint8(0))
    ok, buffer = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_BILEVEL, 1])
    if not ok:
        raise ValueError(f"cannot encode a mask of shape {mask.shape} as PNG")
    return buffer.tobytes()


def encode_jpeg(image: NDArray[np.uint8]) -> bytes:
    """Return uint8 (H, W, 3) RGB as JPEG of quality 95 without chroma subsampling."""
    data: bytes = simplejpeg.encode_jpeg(image, quality=JPEG_QUALITY, colorsubsampling="444")
    return data


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
