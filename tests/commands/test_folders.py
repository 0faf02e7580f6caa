"""Images from any system: PNG files matched by key, scored like our own, refused when they are not whole."""

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from benchmark import compare, evaluate, registry
from benchmark.base.files import sealed_json
from benchmark.base.images import encode_png
from benchmark.compare import Compare
from benchmark.contracts.plugins import Encoder
from benchmark.contracts.records import Record
from benchmark.encoders.scenes import Scenes
from benchmark.engine.datasets import BuiltDataset
from benchmark.engine.imagesets import load_reference, read_images, write_image
from benchmark.engine.records import read_record
from benchmark.engine.runs import IMAGES

Images = NDArray[np.uint8]


@pytest.fixture(scope="module")
def home(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what another system drew, once and twice a key, and with pictures that follow nothing."""
    folder = tmp_path_factory.mktemp("foreign")
    reference = load_reference(BuiltDataset.open(tiny_dataset), "test", "seg", None)
    images = reference.images()
    noise = np.random.default_rng(0).integers(0, 256, images.shape, dtype=np.uint8)
    for i, key in enumerate(reference.keys):
        write_image(folder / "theirs", key, images[i])
        write_image(folder / "twice", f"{key}_0", images[i])
        write_image(folder / "twice", f"{key}_1", cv2.GaussianBlur(images[i], (5, 5), 0))
        write_image(folder / "blurred", key, cv2.GaussianBlur(images[i], (5, 5), 0))
        write_image(folder / "noise", key, noise[i])
    return folder


def asked(images: Path, home: Path, dataset: Path, results: Path) -> list[str]:
    """Return the words that have a folder scored."""
    floor = ["--no-control", str(home / "noise"), "--base", "scenes-tiny"]
    metrics = ["--metric", "fd", "--metric", "clip_score"]
    where = ["--images", str(images), "--dataset", str(dataset), "--results", str(results)]
    where += ["--cache", str(home / "cache")]
    return [*where, "--cond", "seg", *floor, *metrics]


@pytest.fixture
def words(home: Path, tiny_dataset: Path, tmp_path: Path) -> Callable[..., list[str]]:
    def words(name: str, *more: str) -> list[str]:
        images = home / name if (home / name).exists() else tmp_path / name
        return [*asked(images, home, tiny_dataset, tmp_path / "results"), *more]

    return words


Words = Callable[..., list[str]]


def scored(folder: Path) -> Record:
    (path,) = (folder / "results").rglob("*.json")
    record = read_record(path)
    shutil.rmtree(folder / "results")
    return record


def last_error(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_vectors_are_kept_for_the_next_metric_and_belong_to_the_images_alone(
    words: Words, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(home / "blurred", tmp_path / "copied")
    assert evaluate.main(words("blurred")) == 0
    first = scored(tmp_path)
    seen: list[int] = []

    def encode(self: Scenes, images: Images) -> NDArray[np.float32]:
        seen.append(len(images))
        return unpatched(self, images)

    unpatched = Scenes.encode
    monkeypatch.setattr(Scenes, "encode", encode)
    assert evaluate.main(words("copied", "--metric", "kid")) == 0
    again = scored(tmp_path)
    assert not seen
    assert {score.name for score in again.scores} - {score.name for score in first.scores} == {"kid-scenes"}
    assert again.scores[:2] == first.scores
    one, *_ = sorted((tmp_path / "copied").glob("*.png"))
    shutil.copy(home / "noise" / one.name, one)
    assert evaluate.main(words("copied")) == 0
    assert seen == [24]
    assert scored(tmp_path).scores[0] != first.scores[0]
    for path in (home / "cache").rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-1] + b"\x99")
    assert evaluate.main(words("blurred")) == 2
    assert "is damaged; delete it and run the command again" in last_error(capsys)
    shutil.rmtree(home / "cache")


def test_real_images_given_as_a_folder_score_as_the_real_images(words: Words, tmp_path: Path) -> None:
    assert evaluate.main(words("theirs")) == 0
    record = scored(tmp_path)
    miou = record.reconstruction["miou"]
    assert miou.run.estimate == miou.real.estimate
    assert miou.run.estimate > miou.no_control.estimate
    assert miou.normalised is not None
    assert (record.method, record.base, record.training) == ("folder:theirs", "scenes-tiny", None)
    assert record.generation["prompts"] == "unknown"
    fd = next(score for score in record.scores if score.name == "fd-scenes")
    assert fd.value == pytest.approx(0.0, abs=1e-6)


def cosines(folder: Path, dataset: Path, ending: str = "") -> NDArray[np.float64]:
    """Return 100 cos of each image of a folder and its caption."""
    reference, space = load_reference(BuiltDataset.open(dataset), "test", "seg", None), registry.make(Encoder, "clip")
    images = read_images(folder, [f"{key}{ending}" for key in reference.keys], 64)
    both = space.encode(images), space.encode_texts(list(reference.captions))
    agreements: NDArray[np.float64] = 100 * (both[0].astype(np.float64) * both[1]).sum(axis=1)
    return agreements


def test_several_images_a_key_are_scored_together_and_count_as_one_sample(
    home: Path, words: Words, tiny_dataset: Path, tmp_path: Path
) -> None:
    parts = []
    for name in ("twice", "theirs", "blurred"):
        assert evaluate.main(words(name)) == 0
        parts.append(scored(tmp_path))
    both, *each = parts
    assert (both.counts.requested, both.counts.generated) == (48, 48)
    accuracies = [part.reconstruction["pixel_accuracy"].run for part in each]
    pooled = both.reconstruction["pixel_accuracy"].run
    assert pooled.estimate == pytest.approx(np.mean([score.estimate for score in accuracies]))
    assert pooled.n == 24
    for score, *singles in zip(both.scores, *(part.scores for part in each), strict=True):
        assert score.estimate == pytest.approx(np.mean([single.estimate for single in singles]))
        assert 0 < score.stderr < np.mean([single.stderr for single in singles])
        assert (score.n, score.definition["sets"]) == (24, 2)
    of_keys = (cosines(home / "twice", tiny_dataset, "_0") + cosines(home / "twice", tiny_dataset, "_1")) / 2
    agreement = next(score for score in both.scores if score.name == "clip_score")
    assert agreement.stderr == pytest.approx(of_keys.std(ddof=1) / np.sqrt(24), rel=1e-4)
    assert both.comparability_key != each[0].comparability_key
    assert each[0].comparability_key == each[1].comparability_key
    assert each[0].evaluation_id != each[1].evaluation_id


def test_the_scores_of_controlnetpp_are_added_as_coded_and_mended(
    words: Words, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its code scores the first image for all: here the real one, beside a blurred one."""
    assert evaluate.main(words("twice", "--controlnetpp")) == 2
    assert "ControlNet++ has no score of its own for seg" in last_error(capsys)
    assert evaluate.main([*words("twice"), "--cond", "canny", "--controlnetpp"]) == 0
    record = scored(tmp_path)
    found = {score.name: score for score in record.scores}
    compat, strict = found["controlnetpp_compat.f1"], found["controlnetpp_strict.f1"]
    assert (compat.value, compat.stderr, compat.n) == (100.0, 0.0, 24)
    assert 20 < strict.value < 100
    assert strict.stderr > 0
    assert {"controlnetpp_compat.f1", "controlnetpp_strict.f1"} < {score.name for score in record.floor_scores}
    assert "controlnetpp" in record.environment["comparability"]


@pytest.mark.parametrize(("name", "victims", "told"), [("theirs", 3, "lacks 3 of 24 images"), ("twice", 1, "1 of 48")])
def test_a_folder_that_is_not_whole_is_refused_with_the_first_missing_key(
    name: str, victims: int, told: str, home: Path, words: Words, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(home / name, tmp_path / "holes"))
    gone = sorted(copy.glob("*.png"))[4 : 4 + victims]
    for path in gone:
        path.unlink()
    assert evaluate.main(words("holes")) == 2
    error = last_error(capsys)
    assert told in error
    assert gone[0].stem in error
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("stray", ["condition.png", "KEY_0.png"])
def test_images_of_no_sample_are_refused(
    stray: str, home: Path, words: Words, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(home / "theirs", tmp_path / "mixed"))
    name = stray.replace("KEY", min(copy.glob("*.png")).stem)
    (copy / name).write_bytes(encode_png(np.zeros((64, 64, 3), np.uint8)))
    assert evaluate.main(words("mixed")) == 2
    assert f"holds 1 images of no sample, the first is {name}" in last_error(capsys)


def test_images_of_another_size_are_refused(
    home: Path, words: Words, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(home / "theirs", tmp_path / "small"))
    (min(copy.glob("*.png"))).write_bytes(encode_png(np.zeros((32, 32, 3), np.uint8)))
    assert evaluate.main(words("small")) == 2
    assert "is (32, 32) pixels, not 64 x 64" in last_error(capsys)


def test_what_the_folder_does_not_say_must_be_said(
    home: Path, words: Words, tiny_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main(["--images", str(home / "theirs")]) == 2
    assert "holds no images.json: give --dataset, --cond and --no-control" in last_error(capsys)
    without_base = [word for word in words("theirs") if word not in ("--base", "scenes-tiny")]
    assert evaluate.main(without_base) == 2
    assert "does not say which base drew it; give --base" in last_error(capsys)
    assert evaluate.main(words("theirs", "--split", "tset")) == 2
    assert 'no split "tset"; did you mean "test"?' in last_error(capsys)
    assert evaluate.main(words("theirs", "--metric", "nearest")) == 2
    assert "nearest needs the images a run was trained on" in last_error(capsys)
    assert evaluate.main(["--images", str(tiny_dataset / "nowhere"), *words("theirs")[2:]]) == 2
    assert "nowhere is no folder of images" in last_error(capsys)
    assert not (home / "theirs" / IMAGES).exists()


@pytest.fixture(scope="module")
def results(home: Path, tiny_dataset: Path) -> Path:
    """A folder with the records of the real images and of blurred ones; not to be changed."""
    folder = home / "results"
    for name in ("theirs", "blurred"):
        assert evaluate.main(asked(home / name, home, tiny_dataset, folder)) == 0
    return folder


@pytest.fixture
def records(results: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the two records and of what lies beside them."""
    copy = Path(shutil.copytree(results, tmp_path / "pair"))
    sharp, blurred = (next(copy.rglob(f"folder:{name}/*.json")) for name in ("theirs", "blurred"))
    return sharp, blurred


def test_two_records_of_the_same_samples_are_compared_pair_by_pair(
    records: tuple[Path, Path], home: Path, tiny_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {each.a.name: each for each in compare.compare(Compare(*records))}
    agreement = found["clip_score"].difference
    test = stats.ttest_rel(cosines(home / "theirs", tiny_dataset), cosines(home / "blurred", tiny_dataset))
    assert (agreement.value / agreement.stderr, agreement.p) == pytest.approx((test.statistic, test.pvalue), rel=1e-3)
    assert (agreement.low, agreement.high) == pytest.approx(tuple(test.confidence_interval(0.95)), rel=1e-3)
    miou = found["miou.run"]
    assert miou.difference.value == miou.a.estimate - miou.b.estimate
    assert 0 < miou.difference.stderr < np.hypot(miou.a.stderr, miou.b.stderr)
    assert found["fd-scenes"].unranked == "n = 24 is below 2 D = 128"
    assert {"miou.normalised", "miou.gain"} < found.keys()
    assert not {"miou.real", "miou.no_control"} & found.keys()
    assert compare.main([str(path) for path in records]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines["miou.run"].endswith("A is better")
    assert "detectable" in lines["miou.run"]
    assert "n = 24" in lines["miou.run"]
    assert lines["fd-scenes"].endswith("not ranked: n = 24 is below 2 D = 128")


def test_a_record_and_itself_are_not_told_apart(records: tuple[Path, Path]) -> None:
    found = compare.compare(Compare(records[0], records[0]))
    assert {(each.difference.value, each.difference.stderr, each.difference.p) for each in found} == {(0.0, 0.0, 1.0)}
    assert all("better" not in line for line in compare.describe(found))


def test_records_of_other_conditions_referees_or_metrics_are_not_compared(
    records: tuple[Path, Path], words: Words, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main([*words("blurred")[:-2], "--cond", "canny", "--results", str(tmp_path / "other")]) == 0
    (other,) = (tmp_path / "other").rglob("*.json")
    assert compare.main([str(records[0]), str(other)]) == 2
    error = last_error(capsys)
    assert "may not be compared, they differ in" in error
    assert "condition.name: seg -> canny" in error
    assert "metrics.clip_score.name: clip_score -> absent" in error
    assert "referee.spec" in error


def test_a_record_without_its_samples_or_with_anothers_is_not_compared(
    records: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, other = (path.with_suffix(".parquet") for path in records)
    shutil.copy(other, mine)
    assert compare.main([str(path) for path in records]) == 2
    assert "is not what was written with the record beside it" in last_error(capsys)
    theirs = read_record(records[0]).model_copy(update={"attached": read_record(records[1]).attached})
    records[0].write_bytes(
        sealed_json(theirs.model_copy(update={"scores": (), "floor_scores": ()}).model_dump(mode="json"))
    )
    assert compare.main([str(path) for path in records]) == 2
    assert "is not of the record beside it; score its images again" in last_error(capsys)
    mine.unlink()
    assert compare.main([str(path) for path in records]) == 2
    assert f"{mine} is missing" in (error := last_error(capsys))
    assert "python -m benchmark.evaluate --images" in error
    assert compare.main([str(records[0]), str(tmp_path / "none.json")]) == 2
    assert "none.json is no file; give a record" in last_error(capsys)
