"""Read conditions, figures and features off images with the referee, and score it against exact truth."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from benchmark.numbers.inverse_depth import over_greatest
from benchmark.numbers.pose import SEEN, keypoint_hits
from benchmark.scenes.drawing import scribble
from benchmark.scenes.figure import KEYPOINTS
from benchmark.scenes.maps import ON, in_sides
from benchmark.scenes.models import Reading, Referee, to_input
from benchmark.scenes.palette import COLOURS, PERSON, SEG_CLASSES
from benchmark.scenes.pool import Pool, Truth

_BATCH = 64
_PERSON_PIXELS = 12  # of 64 x 64: fewer are no figure
_MARGIN = 2  # pixels around a figure's region where its joints may lie
_NEAREST = 0.1  # metres; nothing of the world stands nearer
_SEEN = 0.15  # probability from which a joint counts as seen


def figures(seg: NDArray[np.int64], joints: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the figures of one image, float32 (P, 18, 3): x, y in pixels, and 2 where a joint is seen, else 0.

    Every connected region of the class person is one figure; each joint lies where its probability is highest on the
    region and two pixels around it, refined to the centre of mass of the 3 x 3 pixels there.

    Args:
        seg: Class ids (H, W).
        joints: Probabilities (18, H, W).
    """
    labels, count = ndimage.label(seg == SEG_CLASSES.index(PERSON), structure=np.ones((3, 3)))
    found = [_figure(labels == i, joints) for i in range(1, count + 1) if (labels == i).sum() >= _PERSON_PIXELS]
    return np.stack(found) if found else np.zeros((0, len(KEYPOINTS), 3), np.float32)


def _figure(region: NDArray[np.bool_], joints: NDArray[np.float32]) -> NDArray[np.float32]:
    near = ndimage.binary_dilation(region, structure=np.ones((3, 3)), iterations=_MARGIN)
    padded = np.pad(np.where(near, joints, 0.0), ((0, 0), (1, 1), (1, 1)))
    out = np.zeros((len(KEYPOINTS), 3), np.float32)
    for k, heat in enumerate(padded):
        row, column = np.unravel_index(int(heat.argmax()), heat.shape)
        if heat[row, column] < _SEEN:
            continue
        window = heat[row - 1 : row + 2, column - 1 : column + 2]
        weights = window / window.sum()
        dy, dx = weights.sum(axis=1) @ [-1, 0, 1], weights.sum(axis=0) @ [-1, 0, 1]
        out[k] = column - 1 + dx + 0.5, row - 1 + dy + 0.5, SEEN
    return out


@torch.inference_mode()
def read(referee: Referee, images: NDArray[np.uint8]) -> Iterator[Reading]:
    """Yield readings of images uint8 (N, H, W, 3), 64 at a time."""
    for start in range(0, len(images), _BATCH):
        yield referee(
            to_input(np.asarray(images[start : start + _BATCH])).contiguous(memory_format=torch.channels_last)
        )


def read_off(reading: Reading, condition: str) -> list[NDArray[np.generic]]:
    """Return a condition's map for each image of a reading."""
    seg = reading.seg.argmax(dim=1).numpy()
    if condition == "seg":
        return list(seg.astype(np.uint16))
    if condition == "depth":
        return list(reading.depth.numpy())
    if condition == "relative_depth":
        return [over_greatest(1.0 / np.maximum(depth, _NEAREST)) for depth in reading.depth.numpy()]
    if condition == "normal":
        return list(np.ascontiguousarray(reading.normal.permute(0, 2, 3, 1).numpy()))
    if condition == "softedge":
        return list(reading.boundary.numpy())
    if condition == "lines":
        return list(reading.lines.numpy() >= ON)
    if condition == "scribble":
        return [scribble(boundary) for boundary in reading.boundary.numpy()]
    return [in_sides(figures(ids, heat), len(ids)) for ids, heat in zip(seg, reading.joints.numpy(), strict=True)]


@torch.inference_mode()
def features(referee: Referee, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return (N, 64) features of images uint8 (N, 64, 64, 3)."""
    parts = [referee.features(to_input(np.asarray(images[i : i + _BATCH]))) for i in range(0, len(images), _BATCH)]
    return torch.cat(parts).double().numpy()


def held_out_scores(referee: Referee, held_out: Pool) -> dict[str, float]:
    """Return the referee's scores on renders: class and colour accuracy, depth, normals, outlines, keypoints.

    AbsRel is the mean of |d - d*| / d*; normals the median angle; boundaries and lines F1 with one pixel of tolerance
    above 0.5 on both sides; keypoints the share of seen joints found within a tenth of the figure's height.
    """
    truth, parts = held_out.truth, list(read(referee, held_out.images))
    seg = torch.cat([part.seg.argmax(dim=1) for part in parts]).numpy()
    colour = torch.cat([part.colour.argmax(dim=1) for part in parts]).numpy()
    depth = torch.cat([part.depth for part in parts]).numpy()
    normal = torch.cat([part.normal for part in parts]).permute(0, 2, 3, 1).numpy()
    objects = truth.seg >= 2
    true_depth = truth.depth.astype(np.float32)
    cosine = (normal * truth.normal.astype(np.float32) / 127).sum(axis=-1)
    return {
        "miou": mean_iou(truth.seg, seg, len(SEG_CLASSES)),
        "colour_accuracy": float((colour == truth.colour)[objects].mean()),
        "colour_miou": mean_iou(truth.colour, colour, 1 + len(COLOURS)),
        "depth_absrel": float((np.abs(depth - true_depth) / true_depth).mean()),
        "normal_median_degrees": float(np.degrees(np.arccos(np.clip(np.median(cosine), -1, 1)))),
        "normal_median_degrees_objects": float(np.degrees(np.arccos(np.clip(np.median(cosine[objects]), -1, 1)))),
        "boundary_f1_1px": _f1(truth.boundary > 127, torch.cat([part.boundary for part in parts]).numpy() > 0.5),
        "lines_f1_1px": _f1(truth.lines > 127, torch.cat([part.lines for part in parts]).numpy() > 0.5),
        "keypoints_within_tenth": keypoint_share(truth, seg, torch.cat([part.joints for part in parts]).numpy()),
    }


def mean_iou(truth: NDArray[np.uint8], predicted: NDArray[np.int64], classes: int) -> float:
    """Return the mean over classes of intersection over union, from one confusion matrix."""
    counts = np.bincount(truth.astype(np.int64).ravel() * classes + predicted.ravel(), minlength=classes**2)
    confusion = counts.reshape(classes, classes).astype(np.float64)
    hits = confusion.diagonal()
    return float((hits / (confusion.sum(axis=0) + confusion.sum(axis=1) - hits)).mean())


def _f1(truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> float:
    """Return F1 over all pixels of all images; a pixel counts as met by one next to it."""
    size = (1, 3, 3)
    precision = ndimage.maximum_filter(truth, size=size)[predicted].mean()
    recall = ndimage.maximum_filter(predicted, size=size)[truth].mean()
    return float(2 * precision * recall / (precision + recall))


def keypoint_share(truth: Truth, seg: NDArray[np.int64], joints: NDArray[np.float32]) -> float:
    """Return the share of seen joints that are found within a tenth of their figure's height."""
    pairs = zip(truth.keypoints, seg, joints, strict=True)
    hits = [keypoint_hits(keypoints[keypoints.any(axis=(1, 2))], figures(ids, heat)) for keypoints, ids, heat in pairs]
    right, total = np.sum(hits, axis=0)
    return float(right / total)
