"""The whole way, through the commands: build, train, generate, evaluate."""

import gzip
import json
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial import KDTree
from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

from benchmark import build, evaluate, generate, leaderboard, registry, train
from benchmark.base.files import sha256
from benchmark.base.images import decode_rgb
from benchmark.contracts.plugins import Condition, Encoder
from benchmark.contracts.records import Record
from benchmark.engine import imagesets
from benchmark.engine.bases import Base
from benchmark.engine.corruptions import corrupted, damage
from benchmark.engine.datasets import BuiltDataset
from benchmark.engine.latents import encode_moments
from benchmark.engine.pools import trained_images
from benchmark.engine.reader import choose_rows
from benchmark.engine.records import read_record

STEPS = ["--num-inference-steps", "3", "--batch", "8", "--device", "cpu"]
GENERATE = ["--dataset", "my data", "--limit", "24", *STEPS]
TRAIN = [
    "--dataset",
    "my data",
    "--cond",
    "seg",
    "--steps",
    "4",
    "--batch",
    "8",
    "--cache",
    "latents",
    "--device",
    "cpu",
]
ANCHORS = ("run", "real", "vae", "no_control", "shuffled")


@pytest.fixture(scope="module", autouse=True)
def home(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Work in a folder of its own that holds the dataset, under a name that needs quotes, and the latents."""
    folder = tmp_path_factory.mktemp("line")
    (tiny_dataset.parent / "latents").mkdir(exist_ok=True)
    (folder / "my data").symlink_to(tiny_dataset)
    (folder / "latents").symlink_to(tiny_dataset.parent / "latents")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def line(home: Path) -> Path:
    """Go the whole way once, from a dataset made by build; return the record."""
    assert train.main([*TRAIN, "--out", "runs/mine"]) == 0
    assert generate.main([*GENERATE, "--run", "runs/mine", "--out", "runs/images/mine"]) == 0
    assert generate.main(GENERATE) == 0
    assert evaluate.main(["--images", "runs/images/mine"]) == 0
    (record,) = (home / "results").rglob("*.json")
    return record


def read(record: Path) -> Record:
    return read_record(record)


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path.read_bytes()) for path in folder.glob("*.png")}


def last_error(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_the_record_is_valid_and_names_what_was_scored(line: Path, home: Path) -> None:
    record = read(line)
    assert line.relative_to(home / "results") == Path(
        record.dataset["name"], "seg", "controlnet", f"{record.evaluation_id}.json"
    )
    assert record.base == "scenes-tiny"
    assert record.training is not None
    assert (record.training["step"], record.training["recipe"]["batch"]) == (4, 8)
    assert (record.counts.requested, record.counts.generated, record.counts.failed) == (24, 24, 0)
    assert {score.name for score in record.scores} == {
        "fd-scenes",
        "kid-scenes",
        "cmmd-clip",
        "clip_score",
        "diversity-scenes",
    }
    assert {score.name for score in record.floor_scores} == {score.name for score in record.scores}


def test_the_record_holds_the_commands_of_evaluation_and_of_training(line: Path) -> None:
    environment = read(line).environment
    assert environment["command"].startswith("python -m benchmark.evaluate")
    assert environment["training"]["command"].startswith("python -m benchmark.train")
    assert environment["training"]["packages"]["torch"]
    assert [command.split()[:3] for command in environment["drawing"]] == [["python", "-m", "benchmark.generate"]] * 2


def test_a_checkpoint_may_be_the_referee(line: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--images", "runs/images/mine", "--metric", "kid", "--results", str(tmp_path / "results"), "--referee"]
    config = SegformerConfig(depths=[1] * 4, hidden_sizes=[8] * 4, decoder_hidden_size=8, num_attention_heads=[1] * 4)
    for classes in (7, 150):
        config.num_labels = classes
        SegformerForSemanticSegmentation(config).save_pretrained(tmp_path / str(classes))
        SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path / str(classes))
    assert evaluate.main([*words, f"transformers_seg:{tmp_path / '150'}"]) == 2
    assert "tells 150 classes apart, but seg holds 7" in last_error(capsys)
    assert evaluate.main([*words, f"transformers_seg:{tmp_path / '7'}"]) == 0
    record, own = read(next((tmp_path / "results").rglob("*.json"))), read(line)
    assert record.referee["weights_sha256"] == sha256((tmp_path / "7" / "model.safetensors").read_bytes())
    assert record.comparability_key != own.comparability_key
    assert record.reconstruction["miou"].real.estimate < own.reconstruction["miou"].real.estimate


def test_every_score_states_its_interval_and_number_of_images(line: Path) -> None:
    record = read(line)
    scores = [*record.scores, *(getattr(score, name) for score in record.reconstruction.values() for name in ANCHORS)]
    assert all(score.n == 24 and score.low <= score.estimate <= score.high for score in scores)


def test_the_anchors_of_segmentation_lie_in_the_order_of_what_they_know(line: Path) -> None:
    miou = read(line).reconstruction["miou"]
    assert miou.real.estimate > miou.vae.estimate - 0.05
    assert miou.vae.estimate > miou.no_control.estimate
    assert miou.real.estimate > miou.shuffled.estimate
    assert miou.real.estimate > 0.8
    assert miou.normalised is not None
    assert miou.gain is not None
    assert miou.gain.estimate == pytest.approx(miou.run.estimate - miou.shuffled.estimate)


def test_a_control_of_four_updates_is_near_the_floor(line: Path) -> None:
    miou = read(line).reconstruction["miou"]
    assert abs(miou.run.estimate - miou.no_control.estimate) < 0.2


def test_the_strip_and_the_curve_lie_beside_the_record(line: Path, home: Path) -> None:
    strip = line.with_suffix(".webp").read_bytes()
    assert strip[:4] == b"RIFF"
    assert 1_000 < len(strip) < 40_000
    assert gzip.decompress(line.with_suffix(".jsonl.gz").read_bytes()) == (home / "runs/mine/curve.jsonl").read_bytes()


@pytest.mark.usefixtures("line")
def test_another_method_goes_the_same_way_under_its_own_name(home: Path) -> None:
    spec = "t2i_adapter,num_res_blocks=1"
    assert train.main([*TRAIN, "--method", spec, "--out", "runs/adapter"]) == 0
    assert generate.main([*GENERATE, "--run", "runs/adapter", "--out", "runs/images/adapter"]) == 0
    checkpoint = ["--controlnet", "runs/adapter/checkpoints/step-4", "--method", spec, "--cond", "seg"]
    assert generate.main([*GENERATE, *checkpoint, "--out", "runs/images/released"]) == 0
    assert hashes(home / "runs/images/adapter") == hashes(home / "runs/images/released")
    assert hashes(home / "runs/images/adapter") != hashes(home / "runs/images/mine")
    assert evaluate.main(["--images", "runs/images/adapter", "--results", "others"]) == 0
    (record,) = (home / "others").rglob("*.json")
    assert read(record).method == spec == record.parent.name


@pytest.mark.usefixtures("line")
def test_two_runs_add_up_and_are_scored_by_either_condition(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    canny = [word if word != "seg" else "canny" for word in TRAIN]
    assert train.main([*canny, "--out", "runs/edges"]) == 0
    both = ["--run", "runs/mine", "--run", "runs/edges"]
    assert generate.main([*GENERATE, *both, "--out", "runs/images/both"]) == 0
    assert generate.main([*GENERATE, *both[2:], "--out", "runs/images/edges"]) == 0
    drawn = [hashes(home / "runs/images" / name) for name in ("both", "mine", "edges")]
    assert drawn[0] not in drawn[1:]
    assert evaluate.main(["--images", "runs/images/both", "--results", "sums"]) == 2
    assert "follow several conditions; score one with --cond, allowed: seg, canny" in last_error(capsys)
    for name in ("seg", "canny"):
        assert evaluate.main(["--images", "runs/images/both", "--results", "sums", "--cond", name]) == 0
    records = [read(path) for path in (home / "sums").rglob("*.json")]
    assert sorted(record.condition for record in records) == ["canny", "seg"]
    assert {record.method for record in records} == {"controlnet@seg+controlnet@canny"}
    assert len(records[0].environment["training"]["parts"]) == 2
    seg = next(record for record in records if record.condition == "seg")
    assert seg.comparability_key == read(next((home / "results").rglob("*.json"))).comparability_key
    assert leaderboard.main(["--results", "sums"]) == 0
    assert generate.main([*GENERATE, "--run", "runs/mine", "--run", "runs/mine"]) == 2
    assert "follow the same condition" in last_error(capsys)


@pytest.mark.usefixtures("line")
def test_nearest_is_the_distance_to_the_images_of_the_run_and_no_others(
    home: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    words = ["--num-samples", "40", "--replicate", "1", "--out", "runs/few"]
    assert train.main([*TRAIN, *words]) == 0
    assert generate.main([*GENERATE, "--run", "runs/few", "--out", "runs/images/few"]) == 0
    asked = ["--images", "runs/images/few", "--metric", "nearest", "--results", str(tmp_path)]
    assert evaluate.main(asked) == 0
    (score,) = read(next(tmp_path.rglob("*.json"))).scores
    dataset, scenes = BuiltDataset.open(tiny_dataset), registry.make(Encoder, "scenes")
    rows = list(dataset.rows("train", ["key", "image"]))
    chosen = choose_rows([row["key"] for row in rows], 40, 1, 0, is_shuffled=True)
    trees = KDTree(scenes.encode(np.stack([decode_rgb(rows[i]["image"]["bytes"]) for i in chosen])))
    reference = imagesets.load_reference(dataset, "test", "seg", 24)
    drawn = imagesets.read_images(home / "runs/images/few", reference.keys, 64)
    near = [trees.query(scenes.encode(images))[0].mean() for images in (drawn, reference.images())]
    assert score.name == "nearest-scenes"
    assert score.value == pytest.approx(near[0] / near[1], rel=1e-4)
    assert score.definition["num_training_images"] == 40


def test_images_of_a_test_split_keep_their_record_when_training_rows_are_added(
    line: Path, tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grown = Path(shutil.copytree(tiny_dataset, tmp_path / "my data"))
    words = BuiltDataset.open(tiny_dataset).command
    assert words is not None
    assert build.main([*words.split()[3:-1], "1k", "--workers", "1", "--out", str(grown)]) == 0
    before, after = BuiltDataset.open(tiny_dataset), BuiltDataset.open(grown)
    assert before.manifest.fingerprint != after.manifest.fingerprint
    assert before.fingerprint("train") != after.fingerprint("train")
    assert read(line).dataset["fingerprint"] == before.fingerprint("test") == after.fingerprint("test")
    assert evaluate.main(["--images", "runs/images/mine", "--dataset", str(grown)]) == 0
    assert "they were already scored" in capsys.readouterr().out


def test_evaluating_again_leaves_the_record_as_it_is(line: Path) -> None:
    before = (line.read_bytes(), line.stat().st_ino, line.stat().st_mtime_ns)
    assert evaluate.main(["--images", "runs/images/mine"]) == 0
    assert (line.read_bytes(), line.stat().st_ino, line.stat().st_mtime_ns) == before


def test_scores_are_not_passed_off_as_those_of_other_images_of_the_same_settings(
    line: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, copy = line.read_bytes(), Path(shutil.copytree("runs/images/mine", tmp_path / "mine"))
    words = ["--images", str(copy), "--no-control", str(next(Path("runs/images").glob("*no_control*")))]
    assert evaluate.main(words) == 0
    assert capsys.readouterr().out.endswith("they were already scored\n")
    first, *_, last = sorted(copy.glob("*.png"))
    first.write_bytes(last.read_bytes())
    assert evaluate.main(words) == 2
    assert "is of other images, made with the same settings; give another --results" in last_error(capsys)
    assert line.read_bytes() == before


def test_evaluating_again_elsewhere_gives_the_same_numbers(line: Path, tmp_path: Path) -> None:
    assert evaluate.main(["--images", "runs/images/mine", "--results", str(tmp_path)]) == 0
    (other,) = tmp_path.rglob("*.json")
    skipped = {"created", "environment"}
    assert read(other).model_dump(exclude=skipped) == read(line).model_dump(exclude=skipped)
    assert other.relative_to(tmp_path) == line.relative_to(line.parents[3])


@pytest.mark.usefixtures("line")
def test_finished_work_says_so_and_is_left_alone(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (home / "runs/mine/run.json").stat().st_mtime_ns
    assert train.main([*TRAIN, "--out", "runs/mine"]) == 0
    assert generate.main([*GENERATE, "--run", "runs/mine", "--out", "runs/images/mine"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == ["runs/mine is already finished", "runs/images/mine is already finished"]
    assert (home / "runs/mine/run.json").stat().st_mtime_ns == before


@pytest.mark.usefixtures("line")
def test_another_training_does_not_go_into_the_folder_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main([*TRAIN, "--out", "runs/mine", "--seed", "1"]) == 2
    assert "recipe.seeds.init: 0 -> 1" in last_error(capsys)


def test_a_batch_larger_than_the_data_is_refused_before_a_run_is_begun(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main([*TRAIN, "--num-samples", "7", "--out", "runs/small"]) == 2
    assert "a batch of 8 is larger than the 7 training pairs; lower --batch" in last_error(capsys)
    assert not Path("runs/small").exists()


@pytest.mark.usefixtures("line")
def test_a_run_that_diverges_keeps_that_outcome(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*TRAIN, "--learning-rate", "1e30", "--out", "runs/wild"]
    assert train.main(words) == 2
    assert "runs/wild diverged: the loss is" in last_error(capsys)
    assert json.loads((home / "runs/wild/run.json").read_bytes())["status"] == "diverged"
    assert train.main(words) == 0
    assert "runs/wild is already diverged" in capsys.readouterr().out


@pytest.mark.usefixtures("line")
def test_without_a_floor_the_error_names_the_command_that_makes_it(capsys: pytest.CaptureFixture[str]) -> None:
    """The command in the message is run as it stands, and the evaluation then succeeds."""
    settings = [
        "--limit",
        "16",
        "--seed",
        "3",
        "--prompts",
        "none",
        "--guidance-scale",
        "2.0",
        "--conditioning-scale",
        "0.5",
    ]
    words = ["--dataset", "my data", *STEPS, *settings, "--run", "runs/mine", "--out", "runs/images/other"]
    assert generate.main(words) == 0
    assert evaluate.main(["--images", "runs/images/other", "--results", "other"]) == 2
    error = last_error(capsys)
    assert error.startswith("evaluate: the floor is missing")
    assert generate.main(shlex.split(error.partition("python -m benchmark.generate ")[2])) == 0
    assert evaluate.main(["--images", "runs/images/other", "--results", "other"]) == 0


@pytest.mark.usefixtures("line")
def test_a_floor_of_other_settings_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main([*GENERATE, "--seed", "9", "--out", "runs/images/floor-9"]) == 0
    assert evaluate.main(["--images", "runs/images/mine", "--no-control", "runs/images/floor-9"]) == 2
    assert "is not the floor of runs/images/mine" in last_error(capsys)


@pytest.mark.usefixtures("line")
def test_images_without_control_are_not_evaluated_as_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    floor = next(Path("runs/images").glob("*_no_control_*"))
    assert evaluate.main(["--images", str(floor)]) == 2
    assert "was made without control" in last_error(capsys)


@pytest.mark.usefixtures("line")
def test_an_image_that_is_missing_is_named_and_made_again_by_the_same_command(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(home / "runs/images/mine", home / "runs/images/holes"))
    before = hashes(folder)
    victims = [sorted(before)[i] for i in (2, 3, 17)]
    for name in victims:
        (folder / name).unlink()
    assert evaluate.main(["--images", "runs/images/holes", "--results", "holes"]) == 2
    assert f"lacks 3 of 24 images, the first is {Path(victims[0]).stem}" in last_error(capsys)
    assert generate.main([*GENERATE, "--run", "runs/mine", "--out", "runs/images/holes"]) == 0
    assert hashes(folder) == before
    assert evaluate.main(["--images", "runs/images/holes", "--results", "holes"]) == 0


@pytest.mark.usefixtures("line")
def test_generation_that_was_interrupted_resumes_to_the_same_images(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*GENERATE, "--run", "runs/mine", "--out", "runs/images/resumed"]
    write, written = imagesets.write_image, list[str]()

    def interrupted(folder: Path, key: str, image: object) -> None:
        if len(written) == 11:
            raise KeyboardInterrupt
        written.append(key)
        write(folder, key, image)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(imagesets, "write_image", interrupted)
        assert generate.main(words) == 130
    folder = home / "runs/images/resumed"
    assert len(hashes(folder)) == 11
    assert evaluate.main(["--images", "runs/images/resumed"]) == 2
    (folder / f"{written[2]}.png").unlink()
    assert generate.main(words) == 0
    assert hashes(folder) == hashes(home / "runs/images/mine")


def test_corruptions_reach_what_is_trained_on(base: Base, tiny_dataset: Path) -> None:
    dataset, form = BuiltDataset.open(tiny_dataset), train.Train(tiny_dataset, num_samples=60, cache=Path("latents"))
    condition = registry.remake(Condition, dataset.condition("seg"))
    clean, dirty, moved = (
        train.load_data(base, dataset, condition, replace(form, corrupt=corrupt))
        for corrupt in ((), ("foreign_map=1", "wrong_caption=1"), ("shifted_map=1",))
    )
    half = [(i + 30) % 60 for i in range(60)]
    maps, others, beside = (data.images[np.arange(60)] for data in (clean, dirty, moved))
    every = torch.arange(60)
    assert torch.equal(dirty.moments[every], clean.moments[every])
    assert np.array_equal(others, maps[half])
    assert torch.equal(dirty.token_ids, clean.token_ids[[(i + 20) % 60 for i in range(60)]])
    assert np.array_equal(beside[:, 4:, 4:], maps[:, :-4, :-4])
    assert torch.equal(moved.token_ids, clean.token_ids)


def test_a_damaged_image_is_what_is_trained_on_and_what_counts_as_trained_on(base: Base, tiny_dataset: Path) -> None:
    dataset, form = BuiltDataset.open(tiny_dataset), train.Train(tiny_dataset, num_samples=60, cache=Path("latents"))
    condition, subset = registry.remake(Condition, dataset.condition("seg")), train.choose_subset(form, dataset)
    images = [decode_rgb(row["image"]["bytes"]) for row in dataset.rows("train", ["image"])]
    clean = train.load_data(base, dataset, condition, form)
    for corrupt in (("blur=1",), ("jpeg=0.5",), ("blur=0.3", "jpeg=0.7")):
        view = corrupted(subset.keys, corrupt, 0)
        names = dict.fromkeys(range(60), ()) | {i: kind for kind, here in view.by_damage() for i in here.tolist()}
        spoilt = [damage(images[subset.rows[i]], names[i]) for i in range(60)]
        data = train.load_data(base, dataset, condition, replace(form, corrupt=corrupt))
        assert torch.equal(data.moments[torch.arange(60)], encode_moments(base, np.stack(spoilt), "all"))
        assert np.array_equal(data.images[np.arange(60)], clean.images[np.arange(60)])
        run = {
            "run": "mine",
            "dataset": {"path": str(tiny_dataset), "plan_hash": dataset.plan.hash},
            "num_samples": 60,
            "replicate": 0,
            "pairs_sha256": subset.sha256,
            "corrupt": corrupt,
            "recipe": {"seeds": {"subset": 0}},
        }
        seen = np.concatenate(list(trained_images(run)))
        assert sorted(map(bytes, seen)) == sorted(map(bytes, spoilt))
