"""Networks of controlnet-aux: real architectures, random weights in the hub's layout, against the library's own use."""

import hashlib
import types
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import cv2
import huggingface_hub.constants
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage import data

from benchmark import registry
from benchmark.annotators import _hub, openpose, scribble
from benchmark.annotators._edges import safe
from benchmark.annotators.mlsd import Mlsd
from benchmark.base.errors import UserError
from benchmark.base.seeds import Stream
from benchmark.contracts.plugins import Annotator, Condition, Images, Map
from benchmark.numbers.pose import keypoint_hits
from benchmark.scenes.figure import KEYPOINTS
from benchmark.scenes.splits import example

with _hub.quiet():
    import controlnet_aux
    from controlnet_aux import util
    from controlnet_aux.hed import ControlNetHED_Apache2
    from controlnet_aux.lineart import Generator
    from controlnet_aux.mlsd.models.mbv2_mlsd_large import MobileV2_MLSD_Large
    from controlnet_aux.normalbae import NNET
    from controlnet_aux.open_pose.body import Body, bodypose_model
    from controlnet_aux.pidi.model import pidinet

State = dict[str, torch.Tensor]
_NORMALBAE = types.SimpleNamespace(
    mode="client", architecture="BN", pretrained="scannet", sampling_ratio=0.4, importance_ratio=0.7
)
# name -> the real network, the file the hub has it in, and how the file holds its weights
_NETWORKS: dict[str, tuple[Callable[[], torch.nn.Module], tuple[str, ...], Callable[[State], Any]]] = {
    "hed": (ControlNetHED_Apache2, ("ControlNetHED.pth",), lambda state: state),
    "pidinet": (
        pidinet,
        ("table5_pidinet.pth",),
        lambda state: {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}},
    ),
    "lineart": (lambda: Generator(3, 1, 3), ("sk_model.pth", "sk_model2.pth"), lambda state: state),
    "mlsd": (MobileV2_MLSD_Large, ("mlsd_large_512_fp32.pth",), lambda state: state),
    "openpose": (
        bodypose_model,
        ("body_pose_model.pth",),
        lambda state: {name.partition(".")[2]: tensor for name, tensor in state.items()},
    ),
    "normalbae": (lambda: NNET(_NORMALBAE), ("scannet.pt",), lambda state: {"model": state}),
}
_LIBRARY = {
    "hed": controlnet_aux.HEDdetector,
    "pidinet": controlnet_aux.PidiNetDetector,
    "lineart": controlnet_aux.LineartDetector,
    "mlsd": controlnet_aux.MLSDdetector,
}
_SPECS = ["hed,safe=false", "hed", "pidinet,safe=false", "pidinet", "lineart", "lineart,coarse=true", "mlsd"]


def _random_state(make: Callable[[], torch.nn.Module], seed: int) -> State:
    """Return random weights that keep activations alive, as overlapping views of little storage: files stay small."""
    with _hub.quiet(), torch.device("meta"):
        shapes = make().state_dict()
    draws = torch.Generator().manual_seed(seed)
    return {name: _random_tensor(name, tensor, draws) for name, tensor in shapes.items()}


def _random_tensor(name: str, like: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
    if like.dtype != torch.float32:
        return torch.zeros(like.shape, dtype=like.dtype)
    if name.endswith("running_var"):
        return torch.ones(like.shape)
    if name == "norm":
        return torch.full(like.shape, 120.0)
    strides = (7, 3, 1, 2)[: like.ndim]
    count = 1 + sum((size - 1) * stride for size, stride in zip(like.shape, strides, strict=True))
    scale = (2 / like[0].numel()) ** 0.5 if like.ndim > 1 else 0.1
    scale *= 0.003 if "projection.weight" in name else 1  # hed's pixels are not normalised
    return (torch.randn(count, generator=draws) * scale).as_strided(like.shape, strides)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file for each network, as the hub's repository has them."""
    folder = tmp_path_factory.mktemp("annotators")
    for make, files, wrapped in _NETWORKS.values():
        for seed, file in enumerate(files):
            torch.save(wrapped(_random_state(make, seed)), folder / file)
    return folder


@cache
def _images(side: int = 64) -> Images:
    """Three photographs, with edges near and far from the border."""
    crops = [data.astronaut()[:side, 180 : 180 + side], data.coffee()[100 : 100 + side, 200 : 200 + side]]
    return np.stack([*crops, data.chelsea()[60 : 60 + side, 100 : 100 + side]])


def _made(hub: Path, spec: str) -> Annotator:
    name, _, fields = spec.partition(",")
    return registry.make(Annotator, f"{name}:{hub}" + (f",{fields}" if fields else ""))


def _by_the_library(hub: Path, spec: str, images: Images, detection: int) -> list[NDArray[np.uint8]]:
    """Return what the library's detector shows, uint8 (H, W, 3)."""
    name, _, fields = spec.partition(",")
    options = {"safe": "safe=false" not in fields, "coarse": "coarse=true" in fields}
    detector = _LIBRARY[name].from_pretrained(str(hub))
    side = images.shape[1]
    return [
        detector(image, detect_resolution=detection, image_resolution=side, output_type="np", **options)
        for image in images
    ]


def _alone(annotator: Annotator, images: Images) -> list[Map]:
    """Return maps of images given one at a time, as the library takes them."""
    return [annotator.annotate(image[None])[0] for image in images]


@pytest.mark.parametrize("spec", _SPECS)
def test_maps_are_those_of_the_librarys_detector(hub: Path, spec: str) -> None:
    annotator = _made(hub, spec)
    condition = registry.make(Condition, annotator.condition)
    shown = _by_the_library(hub, spec, _images(), 64)
    for found, theirs in zip(_alone(annotator, _images()), shown, strict=True):
        assert condition.check(found, 64) is None
        assert np.array_equal(condition.render(found, 64), theirs)
    assert len(np.unique(shown)) >= {"mlsd": 2, "hed": 2, "pidinet": 3}.get(spec, 50)


@pytest.mark.parametrize("spec", ["hed", "pidinet,safe=false", "lineart"])
def test_a_network_may_see_another_size_than_the_map_has(hub: Path, spec: str) -> None:
    annotator, images = _made(hub, f"{spec},resolution=128"), _images()[:1]
    (found,), (theirs,) = annotator.annotate(images), _by_the_library(hub, spec, images, 128)
    assert np.array_equal(registry.make(Condition, annotator.condition).render(found, 64), theirs)


@pytest.mark.parametrize("spec", ["pidinet", "lineart", "mlsd"])
def test_maps_have_the_images_size_where_the_network_cannot_have_it(hub: Path, spec: str) -> None:
    annotator = _made(hub, spec)
    assert registry.make(Condition, annotator.condition).check(annotator.annotate(_images(80)[:1])[0], 80) is None


@torch.inference_mode()
def test_what_lines_are_read_off_depends_on_its_batch_by_rounding_alone(hub: Path) -> None:
    network = Mlsd.build(Mlsd(str(hub)).weights)  # random weights find lines at every threshold: rounding may add one
    pixels = torch.from_numpy(Stream(0, "pixels").normal((3, 4, 64, 64)))
    together, alone = network(pixels), torch.cat([network(pixels[i : i + 1]) for i in range(3)])
    assert float((together - alone).abs().max()) < 1e-4 * float(alone.abs().max())


@pytest.mark.parametrize("spec", ["hed,safe=false", "pidinet,safe=false", "lineart"])
def test_a_map_depends_on_its_batch_by_rounding_alone(hub: Path, spec: str) -> None:
    annotator = _made(hub, spec)
    together, again = annotator.annotate(_images()), annotator.annotate(_images())
    for one, other, same in zip(_alone(annotator, _images()), together, again, strict=True):
        assert np.array_equal(other.array, same.array)
        difference = np.abs(one.array.astype(np.float64) - other.array)
        assert difference.max() <= 1.001 / 255
        assert (difference > 0).mean() < 0.02


@pytest.mark.parametrize("spec", ["hed", "pidinet", "lineart", "mlsd"])
def test_a_map_does_not_depend_on_its_place_in_a_batch(hub: Path, spec: str) -> None:
    annotator = _made(hub, spec)
    forth, back = annotator.annotate(_images()), annotator.annotate(_images()[::-1])[::-1]
    assert all(np.array_equal(a.array, b.array) for a, b in zip(forth, back, strict=True))


def test_safe_strengths_are_the_librarys_steps() -> None:
    strength = np.linspace(0, 1, 1001)
    levels = (255 * util.safe_step(strength)).clip(0, 255).astype(np.uint8)
    assert np.array_equal((255.0 * safe(strength)).astype(np.uint8), levels)
    assert set(levels.tolist()) == {0, 127, 255}


def test_mlsd_finds_nothing_above_all_scores(hub: Path) -> None:
    assert not any(map_.array.any() for map_ in _made(hub, "mlsd,score=1.1").annotate(_images()))


def test_normals_are_the_librarys_with_x_turned_to_the_right(hub: Path) -> None:
    annotator = _made(hub, "normalbae")
    (found,) = annotator.annotate(_images()[:1])
    assert registry.make(Condition, "normal").check(found, 64) is None
    network = _hub.network(type(annotator).build, annotator.weights)  # type: ignore[attr-defined]
    detector = controlnet_aux.NormalBaeDetector(network)
    shown = detector(_images()[0], detect_resolution=64, image_resolution=64, output_type="np").astype(int)
    assert shown.std() > 5
    x, y, z = np.moveaxis(127.5 * (found.array + 1), -1, 0)
    for channel, ours in enumerate((255 - x, y, z)):  # the library cuts levels off below
        assert np.abs(shown[..., channel] + 0.5 - ours).max() <= 0.51


def test_figures_of_random_weights_are_those_of_the_librarys_body(hub: Path) -> None:
    found = _made(hub, "openpose,keypoints=0").annotate(_images()[:1])[0].array
    body = Body(str(hub / "body_pose_model.pth"))
    figures = body.format_body_result(*body(_images()[0][:, :, ::-1].copy()))
    assert found.shape == (len(figures), 18, 3)
    assert len(figures) > 0
    for ours, theirs in zip(found, figures, strict=True):
        seen = [joint is not None for joint in theirs.keypoints]
        assert (ours[:, 2] == np.where(seen, 2, 0)).all()
        points = [(joint.x, joint.y) for joint in theirs.keypoints if joint is not None]
        assert np.allclose(64 * ours[seen, :2] - 0.5, points, atol=1e-4)


def test_a_joint_that_was_not_found_leaves_the_size_of_a_figure_as_it_is() -> None:
    """Scores tolerate a tenth of the height: one joint at the edge of the picture would let all others pass."""
    figure = np.full((1, 18, 3), 2.0)
    figure[0, :, :2] = 400 + 100 * Stream(0, "joints").normal((18, 2)).clip(-1, 1)
    cut, moved, images = figure.copy(), figure.copy(), np.zeros((1, 512, 512, 3), np.uint8)
    cut[0, 16] = 0  # an ear
    moved[..., 1] += 0.3 * np.ptp(figure[0, :, 1])
    annotator = openpose.Openpose.__new__(openpose.Openpose)
    object.__setattr__(annotator, "keypoints", 0.3)
    whole, lacking, away = (annotator.finish(found, images, images) for found in (figure, cut, moved))
    assert (lacking[0, :, 2] == 2).sum() == 17
    assert keypoint_hits(lacking, whole) == (17, 17)
    assert keypoint_hits(lacking, away) == (0, 17)
    box = [np.ptp(found[0, :, :2], axis=0).prod() for found in (whole, lacking)]
    assert box[1] <= box[0]


class _Drawn(torch.nn.Module):
    """What a perfect body model would return for figures at known places: peaks and limb fields (Cao et al. 2019)."""

    LIMBS: ClassVar[tuple[tuple[int, int], ...]] = (
        *((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13)),
        *((1, 0), (0, 14), (14, 16), (0, 15), (15, 17), (2, 16), (5, 17)),
    )
    FIELDS = (12, 20, 14, 16, 22, 24, 0, 2, 4, 6, 8, 10, 28, 30, 34, 32, 36, 18, 26)

    def __init__(self, figures: NDArray[np.float64], present: list[list[int]]) -> None:
        super().__init__()
        self.figures, self.present = figures, present
        self.where = torch.nn.Parameter(torch.zeros(1), requires_grad=False)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        height, width = (side // 8 for side in pixels.shape[2:])
        grid = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1)
        fields, heat = np.zeros((38, height, width)), np.zeros((19, height, width))
        for figure, present in zip(self.figures * [width, height], self.present, strict=True):
            for k in present:
                heat[k] = np.maximum(heat[k], np.exp(-(((grid - figure[k]) ** 2).sum(-1)) / 1.5))
            for (a, b), first in zip(self.LIMBS, self.FIELDS, strict=True):
                if a in present and b in present:
                    along = figure[b] - figure[a]
                    share = np.clip(((grid - figure[a]) @ along) / (along @ along), 0, 1)
                    near = np.linalg.norm(grid - figure[a] - share[..., None] * along, axis=-1) < 1.5
                    fields[first : first + 2, near] = (along / np.linalg.norm(along))[:, None]
        return torch.from_numpy(fields)[None].float(), torch.from_numpy(heat)[None].float()


def _standing(x: float) -> NDArray[np.float64]:
    """A figure that faces the viewer: its right is on the left of the image."""
    rows = {"nose": 0.14, "neck": 0.28, "shoulder": 0.3, "elbow": 0.44, "wrist": 0.58, "hip": 0.58, "knee": 0.74}
    rows |= {"ankle": 0.9, "eye": 0.09, "ear": 0.13}
    wide = {"shoulder": 0.09, "elbow": 0.13, "wrist": 0.15, "hip": 0.06, "knee": 0.07, "ankle": 0.07}
    wide |= {"eye": 0.035, "ear": 0.07}
    points = [(name.partition("_")[0], name.rpartition("_")[2]) for name in KEYPOINTS]
    sign = {"right": -1, "left": 1}
    return np.array([(x + sign.get(side, 0) * wide.get(part, 0), rows[part]) for side, part in points])


@pytest.fixture
def _drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole figure, and one of whom only the head is found."""
    net = _Drawn(np.stack([_standing(0.25), _standing(0.75)]), [list(range(18)), [0, 1, 14, 15]])
    monkeypatch.setattr(_hub, "network", lambda build, weights: net)


@pytest.mark.usefixtures("_drawn")
def test_openpose_names_joints_as_we_do_and_drops_people_of_whom_too_little_is_found(hub: Path) -> None:
    image = np.zeros((1, 256, 256, 3), np.uint8)
    everybody, kept = (_made(hub, f"openpose,keypoints={share}").annotate(image)[0].array for share in (0.2, 0.3))
    assert sorted((figure[:, 2] == 2).sum() for figure in everybody) == [4, 18]
    assert kept.shape == (1, 18, 3)
    assert registry.make(Condition, "pose").check(Map(kept), 256) is None
    assert np.abs(kept[0, :, :2] - _standing(0.25)).max() < 0.02  # a cell of the network's output is 1/23
    assert kept[0, KEYPOINTS.index("right_wrist"), 0] < kept[0, KEYPOINTS.index("left_wrist"), 0]


def test_pictures_without_people_are_left_out_on_purpose() -> None:
    annotator = registry.make(Annotator, "openpose")
    nobody = Map(np.zeros((0, 18, 3), np.float32))
    assert annotator.reject(nobody) == "nobody of whom 30% of the keypoints are found"
    assert annotator.reject(Map(np.zeros((1, 18, 3), np.float32))) is None
    assert [openpose._ORDER[i] for i in openpose._TO_OURS] == list(KEYPOINTS)


def test_identity_is_the_hash_of_the_file(hub: Path) -> None:
    digest = hashlib.sha256((hub / "ControlNetHED.pth").read_bytes()).hexdigest()
    assert _made(hub, "hed").identity() == {"weights_sha256": digest}
    assert registry.make(Annotator, f"scribble:hed,model={hub}").identity() == {"weights_sha256": digest}
    assert _made(hub, "lineart").identity() != _made(hub, "lineart,coarse=true").identity()


def test_weights_of_the_hub_are_named_by_the_commit_they_are_of(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--acme--edges"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "ControlNetHED.pth").write_bytes((hub / "ControlNetHED.pth").read_bytes())
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    fetched = registry.make(Annotator, "hed:acme/edges")
    assert fetched.identity() == {**_made(hub, "hed").identity(), "commit": commit}
    (repository / "refs" / "main").write_text("f" * 40)  # a branch that moves does so for the next process
    assert fetched.identity()["commit"] == commit
    pinned = registry.make(Annotator, f"hed:acme/edges,revision={commit}")
    assert np.array_equal(pinned.annotate(_images())[0].array, _made(hub, "hed").annotate(_images())[0].array)


class _Trap:
    def __reduce__(self) -> Any:
        return print, ("a pickle ran code",)


def test_bad_weights_end_in_one_line(hub: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"holds no ControlNetHED\.pth; give a folder that does"):
        registry.make(Annotator, f"hed:{tmp_path}").annotate(_images())
    with pytest.raises(UserError, match=r"no ControlNetHED\.pth of acme/none"):
        registry.make(Annotator, "hed:acme/none").identity()
    with pytest.raises(UserError, match="is a folder: it has no revision main"):
        _made(hub, "hed,revision=main").identity()
    torch.save({"norm": _Trap()}, tmp_path / "ControlNetHED.pth")
    with pytest.raises(UserError, match="cannot be loaded as weights alone"):
        registry.make(Annotator, f"hed:{tmp_path}").annotate(_images())
    assert "a pickle ran code" not in capsys.readouterr().out
    (tmp_path / "table5_pidinet.pth").write_bytes((hub / "sk_model.pth").read_bytes())
    with pytest.raises(UserError, match="weights of another network"):
        registry.make(Annotator, f"pidinet:{tmp_path}").annotate(_images())


def test_lineart_standard_is_the_librarys() -> None:
    detector, images = controlnet_aux.LineartStandardDetector(), _images(128)
    for found, image in zip(registry.make(Annotator, "lineart_standard").annotate(images), images, strict=True):
        shown = detector(image, detect_resolution=128, output_type="np")
        assert np.array_equal(registry.make(Condition, "lineart").render(found, 128), shown)
    assert (
        not registry.make(Annotator, "lineart_standard").annotate(np.full((1, 64, 64, 3), 90, np.uint8))[0].array.any()
    )


def test_lsd_draws_the_sides_of_a_rectangle() -> None:
    image = np.full((128, 128, 3), 40, np.uint8)
    image[30:90, 20:110] = 200
    (found,) = registry.make(Annotator, "lsd").annotate(image[None])
    outline = np.zeros((128, 128), bool)
    outline[29:91, 19:111] = True
    outline[31:89, 21:109] = False  # two pixels wide, the edge between them
    distance = ndimage.distance_transform_edt(~outline)
    assert distance[found.array].max() <= 1.5
    near = ndimage.binary_dilation(found.array, np.ones((3, 3)), iterations=2)
    assert near[outline].mean() > 0.9
    assert not registry.make(Annotator, "lsd").annotate(np.full((1, 64, 64, 3), 90, np.uint8))[0].array.any()
    few, many = (registry.make(Annotator, f"lsd,length={v}").annotate(_images(128))[0].array.sum() for v in (0.3, 0))
    assert few < many


_KEYS = [f"sample-{i}" for i in range(3)]


def test_random_canny_draws_its_thresholds_by_key_alone() -> None:
    annotator = registry.make(Annotator, "random_canny")
    found = annotator.annotate_samples(_images(), _KEYS)
    for map_, image, key in zip(found, _images(), _KEYS, strict=True):
        low, high = annotator.thresholds(key)  # type: ignore[attr-defined]
        assert np.array_equal(map_.array, cv2.Canny(image, low, high) == 255)
    again = annotator.annotate_samples(_images()[::-1], _KEYS[::-1])[::-1]
    assert all(np.array_equal(a.array, b.array) for a, b in zip(found, again, strict=True))
    middle, fixed = annotator.annotate(_images()), registry.make(Annotator, "canny").annotate(_images())
    assert all(np.array_equal(a.array, b.array) for a, b in zip(middle, fixed, strict=True))


def test_random_thresholds_fill_their_ranges_evenly() -> None:
    annotator: Any = registry.make(Annotator, "random_canny,seed=3")
    drawn = np.array([annotator.thresholds(str(i)) for i in range(4000)])
    for column, (least, most) in zip(drawn.T, ((50, 150), (150, 250)), strict=True):
        assert (column.min(), column.max()) == (least, most)
        assert column.mean() == pytest.approx((least + most) / 2, abs=4 * 29.2 / 4000**0.5)
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 0.06
    other: Any = registry.make(Annotator, "random_canny,seed=4")
    assert annotator.thresholds("0") != other.thresholds("0")
    with pytest.raises(UserError, match="low_from <= low_to"):
        registry.make(Annotator, "random_canny,low_to=200")


def _soft_edges(side: int) -> NDArray[np.uint8]:
    grey = cv2.resize(data.camera(), (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    slope = np.hypot(ndimage.gaussian_gradient_magnitude(grey, side / 256), 1e-3)
    levels: NDArray[np.uint8] = (255 * np.clip(slope / np.quantile(slope, 0.98), 0, 1)).astype(np.uint8)
    return levels


def test_fixed_scribbles_are_those_of_the_authors_code() -> None:
    levels = _soft_edges(512)
    blurred = cv2.GaussianBlur(util.nms(levels, 127, 3.0), (0, 0), 3.0)
    assert np.array_equal(scribble.fixed(levels), blurred > 4)
    assert 0.02 < scribble.fixed(levels).mean() < 0.5
    for threshold, sigma in ((64, 1.0), (150, 2.5)):
        assert np.array_equal(scribble.ridges(levels, threshold, sigma), util.nms(levels, threshold, sigma) == 255)


def test_masks_hide_a_share_of_the_pieces_drawn_from_none_to_half() -> None:
    masks = [scribble.hidden((64, 64), Stream(0, "test", i)) for i in range(400)]
    shares = np.array([mask.mean() for mask in masks])
    assert all(share * 64 == round(share * 64) for share in shares)
    assert shares.mean() == pytest.approx(0.25 - 0.5 / 64, abs=4 * 0.145 / 400**0.5)
    assert shares.min() < 0.02
    assert 0.46 < shares.max() < 0.5
    assert np.abs(np.mean(masks, axis=0) - shares.mean()).max() < 0.1  # no place is spared


def test_drawn_scribbles_follow_the_edges_and_differ_by_stream_alone() -> None:
    levels = _soft_edges(128)
    drawn = [scribble.drawn(levels, Stream(0, "test", i)) for i in range(40)]
    assert len({mask.tobytes() for mask in drawn}) == 40
    assert np.array_equal(drawn[7], scribble.drawn(levels, Stream(0, "test", 7)))
    shares = [mask.mean() for mask in drawn]
    assert 0 < min(shares) < 0.1 < max(shares)
    far = ndimage.distance_transform_edt(levels <= 40)  # thinning blurs by less than a pixel here
    assert max(far[mask].max() for mask in drawn) <= 24 * 128 / 512


def test_scribbles_of_the_bundled_referee_belong_to_the_key() -> None:
    images = np.stack([example(3, "test", i, 64).render.image for i in range(4)])
    keys = [f"test-{i}" for i in range(4)]
    annotator = registry.make(Annotator, "scribble")
    found = annotator.annotate_samples(images, keys)
    alone = annotator.annotate_samples(images[2:3], keys[2:3])[0]
    assert np.array_equal(found[2].array, alone.array)
    assert all(registry.make(Condition, "scribble").check(map_, 64) is None for map_ in found)
    other = annotator.annotate_samples(images, [f"{key}'" for key in keys])
    assert not any(np.array_equal(a.array, b.array) for a, b in zip(found, other, strict=True))
    with pytest.raises(UserError, match='scribble makes none of "hedd"; did you mean "hed"'):
        registry.make(Annotator, "scribble:hedd")


def test_scribbles_of_a_network_are_drawn_from_its_unquantised_edges(hub: Path) -> None:
    annotator = registry.make(Annotator, f"scribble:pidinet,model={hub}")
    (edges,) = _made(hub, "pidinet,safe=false").annotate(_images()[:1])
    wanted = scribble.fixed(np.rint(255 * edges.array).astype(np.uint8))
    assert np.array_equal(annotator.annotate(_images()[:1])[0].array, wanted)
    assert 0 < wanted.mean() < 1
