"""The board, from records made up for the test."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import ValidationError

from benchmark.base.errors import UserError
from benchmark.base.files import sealed_json, sha256
from benchmark.contracts.records import Anchored, Counts, Failure, Record, Score
from benchmark.engine.board import sections
from benchmark.engine.records import read_probes, read_record, write_failure, write_record
from benchmark.leaderboard import main, shown


def score(name: str, value: float, stderr: float = 0.01, unranked: str | None = None) -> Score:
    return Score.of(
        name,
        value=value,
        estimate=value,
        stderr=stderr,
        n=100,
        higher_is_better=True,
        definition={},
        unranked=unranked,
    )


def made_up(
    identity: str,
    control: float | None,
    *,
    key: str = "k",
    method: str = "controlnet",
    seed: int = 0,
    pairs: int = 40,
    **dataset: Any,
) -> Record:
    anchors = {name: score(f"miou.{name}", 0.5) for name in ("run", "real", "vae", "no_control", "shuffled")}
    normalised = None if control is None else score("miou.normalised", control)
    return Record(
        evaluation_id=identity,
        comparability_key=key,
        created="2026-01-01T00:00:00+00:00",
        dataset={"name": "made-up", "plan_hash": "p", "n": 100, **dataset},
        condition="seg",
        headline="miou",
        method=method,
        base="scenes-tiny",
        training={"recipe": {"steps": 10, "batch": 4, "seeds": {"init": seed, "noise": seed}}, "num_samples": pairs},
        generation={"prompts": "full"},
        referee={"spec": "scenes"},
        reconstruction={"miou": Anchored(**anchors, normalised=normalised)},
        scores=(score("fd-scenes", 1.0, unranked="n is small"),),
        floor_scores=(score("fd-scenes", 2.0),),
        counts=Counts(requested=100, generated=100, failed=0),
        environment={"command": "a command"},
    )


def with_probes(path: Path, curve: dict[int, float]) -> None:
    """Write a record again with a curve: normalised control by update."""
    rows = [json.dumps({"step": step, "probe": {"miou.normalised": value}}) for step, value in curve.items()]
    record, data = read_record(path), "\n".join(rows).encode()
    path.with_suffix(".jsonl.gz").write_bytes(gzip.compress(data))
    attached = {".jsonl": sha256(data)}
    path.write_bytes(sealed_json(record.model_copy(update={"attached": attached}).model_dump(mode="json")))


def test_the_page_of_a_record_says_how_its_data_were_built_and_its_images_drawn(tmp_path: Path) -> None:
    built, drawn = "python -m benchmark.build --cond 'seg,a=<b>'", [None, "python -m benchmark.generate --out <floor>"]
    known = {"command": "a command", "building": built, "drawing": drawn}
    for name, environment in (("old", {"command": "a command"}), ("new", known)):
        write_record(tmp_path, made_up(name, 0.5).model_copy(update={"environment": environment}))
    assert main(["--results", str(tmp_path)]) == 0
    old, new = ((tmp_path / "site" / f"{name}.html").read_text() for name in ("old", "new"))
    assert "<p>Drawn without control by <code>python -m benchmark.generate --out &lt;floor&gt;</code></p>" in new
    assert "<p>Data built by <code>python -m benchmark.build --cond &#39;seg,a=&lt;b&gt;&#39;</code></p>" in new
    assert "Drawn by" not in new
    assert " by <code>python" not in old
    (page,) = (tmp_path / "site").glob("dataset-*.html")
    assert "<p>Built by <code>python -m benchmark.build --cond &#39;seg,a=&lt;b&gt;&#39;</code></p>" in page.read_text()


def test_scores_stand_under_their_own_names_in_whatever_order_they_were_asked_for(tmp_path: Path) -> None:
    for number, (first, second) in enumerate((("clip_score", "fd-scenes"), ("fd-scenes", "clip_score"))):
        value = {"clip_score": 90.0 + number, "fd-scenes": 1.0 + number}
        scores = tuple(score(name, value[name]) for name in (first, second))
        floors = tuple(score(name, value[name] + 0.5) for name in (first, second))
        record = made_up(f"r{number}", 0.5, seed=number)
        write_record(tmp_path, record.model_copy(update={"scores": scores, "floor_scores": floors}))
    assert main(["--results", str(tmp_path)]) == 0
    text = (tmp_path / "README.md").read_text()
    assert "| clip_score (no control) | fd-scenes (no control) |" in text
    for clip, fd in ((90, 1), (91, 2)):
        assert re.search(rf"\| {clip}\.\d* \[[^|]*\] \({clip}\.5\d*\) \| {fd}\.\d* \[[^|]*\] \({fd}\.5\d*\) \|", text)


def test_two_scores_of_one_name_are_no_record() -> None:
    record = made_up("r", 0.5)
    twice = {"scores": record.scores * 2, "floor_scores": record.floor_scores * 2}
    with pytest.raises(ValidationError, match="two scores of one name"):
        Record.model_validate({**record.model_dump(), **{k: [s.model_dump() for s in v] for k, v in twice.items()}})


def board_of(*records: Record) -> list[list[tuple[str, int | None]]]:
    named = {Path(f"{record.evaluation_id}.json"): record for record in records}
    return [[(row.record.evaluation_id, row.group) for row in section.rows] for section in sections(named)]


def failed(name: str, training: dict[str, Any]) -> Failure:
    """Return the failure of a training that never ran."""
    return Failure(
        failure_id=name,
        created="2026-01-01T00:00:00+00:00",
        dataset={"name": "made-up", "plan_hash": "p"},
        condition="seg",
        method="controlnet",
        base="scenes-tiny",
        training=training,
        reason="the loss is nan at update 3",
        environment={},
    )


def test_rows_are_ordered_and_share_a_group_while_their_interval_overlaps_the_leaders() -> None:
    board = board_of(made_up("low", 0.2), made_up("best", 0.5, seed=1), made_up("close", 0.48, seed=2))
    assert board == [[("best", 1), ("close", 1), ("low", 2)]]


def test_rows_of_different_keys_never_share_a_table() -> None:
    assert len(board_of(made_up("a", 0.5, key="k1"), made_up("b", 0.4, key="k2"))) == 2


def test_a_row_without_normalised_control_comes_last_and_has_no_group() -> None:
    assert board_of(made_up("none", None), made_up("some", 0.1, seed=1)) == [[("some", 1), ("none", None)]]


def test_runs_that_differ_in_seeds_alone_are_one_line_over_seeds(tmp_path: Path) -> None:
    for seed, control in enumerate((0.5, 0.6, 0.7)):
        path = write_record(tmp_path, made_up(f"run-{seed}", control, seed=seed))
        with_probes(path, {0: 0.0, 100: 0.3 if seed else 0.1, 200: 0.4 if seed else 0.2})
    write_record(tmp_path, made_up("other", 0.9, method="t2i_adapter"))
    assert main(["--results", str(tmp_path)]) == 0
    for text in ((tmp_path / "README.md").read_text(), (tmp_path / "site" / "index.html").read_text()):
        assert "0.600 [0.352, 0.848]" in text  # 0.6 +- 4.303 x 0.1 / sqrt(3)
        assert "0.500" in text
        assert "100, 100 (2 of 3)" in text
        assert "0.900 (one run)" in text
        assert "never (" not in text  # nobody watched the other
        assert "0 of 1" not in text


def test_runs_that_diverged_or_never_followed_are_a_failure_rate(tmp_path: Path) -> None:
    for seed, value in enumerate((0.4, 0.4, 0.1)):
        path = write_record(tmp_path, made_up(f"run-{seed}", 0.5, seed=seed))
        with_probes(path, {100: value})
    training = {"recipe": {"steps": 10, "batch": 4, "seeds": {"init": 9, "noise": 9}}, "num_samples": 40}
    failure = failed("f", training)
    write_failure(tmp_path, failure)
    write_failure(tmp_path, failure.model_copy(update={"failure_id": "g", "training": {**training, "num_samples": 7}}))
    write_failure(tmp_path, failure.model_copy(update={"failure_id": "h", "training": {**training, "name": "again"}}))
    assert main(["--results", str(tmp_path)]) == 0
    for text in ((tmp_path / "README.md").read_text(), (tmp_path / "site" / "index.html").read_text()):
        assert "1 of 1 [0.21, 1.00]" in text  # a recipe of which no run ended with weights stays on the board
        assert "3 of 5 [0.23, 0.88]" in text  # all sizes; the training that two studies share counts once
        assert "2 of 4 [0.15, 0.85]" in text  # Wilson: (p + z^2/2n +- z sqrt(p q/n + z^2/4n^2)) / (1 + z^2/n)


def test_a_training_under_two_names_counts_once(tmp_path: Path) -> None:
    for name, control, seed in (("a", 0.5, 0), ("b", 0.5, 0), ("c", 0.7, 1)):
        record = made_up(name, control, seed=seed)
        write_record(tmp_path, record.model_copy(update={"training": {**(record.training or {}), "name": name}}))
    assert main(["--results", str(tmp_path)]) == 0
    board = (tmp_path / "README.md").read_text()
    assert "| 2 | 0.600 [" in board  # two runs, whose mean is not drawn towards the one that is there twice
    assert "- `b` is left out: the same training as a, counted once" in board
    assert pd.read_csv(tmp_path / "leaderboard.csv")["record"].tolist() == ["c.json", "a.json"]


def invalidate(results: Path, identity: str, why: str = "wrong maps") -> None:
    with (results / "invalidated.toml").open("a") as file:
        file.write(f'[[invalidated]]\nid = "{identity}"\nby = "somebody"\nwhy = "{why}"\n')


def test_an_invalidated_record_is_struck_out_and_counts_nowhere(tmp_path: Path) -> None:
    for name, control, seed in (("best", 0.9, 0), ("b", 0.5, 1), ("c", 0.51, 2)):
        write_record(tmp_path, made_up(name, control, seed=seed))
    invalidate(tmp_path, "best", "trained on test <b>images</b>")
    assert main(["--results", str(tmp_path)]) == 0
    board = (tmp_path / "README.md").read_text()
    assert "0.505 [" in board
    assert "| 1 | controlnet | init 2, noise 2 |" not in board  # seeds that agree are one number
    assert "| 1 | controlnet | 2 | 0.510" in board
    assert "| - | ~~controlnet~~ | 0 | ~~0.900 [0.880, 0.920]~~ |" in board
    assert "- `best` is struck out: trained on test &lt;b>images&lt;/b> (somebody)" in board
    assert pd.read_csv(tmp_path / "leaderboard.csv")["normalised_control"].tolist() == [0.51, 0.5]
    (page,) = (tmp_path / "site").glob("dataset-*.html")
    assert '<tr class="struck">' in page.read_text()
    assert "trained on test &lt;b&gt;images&lt;/b&gt; (somebody)" in page.read_text()
    assert "Counted nowhere: trained on test" in (tmp_path / "site" / "best.html").read_text()


def test_a_table_whose_records_are_all_invalidated_stays(tmp_path: Path) -> None:
    write_record(tmp_path, made_up("a", 0.5))
    invalidate(tmp_path, "a")
    assert main(["--results", str(tmp_path)]) == 0
    assert "~~0.500 [0.480, 0.520]~~" in (tmp_path / "README.md").read_text()


def test_an_invalidated_failure_is_no_failure(tmp_path: Path) -> None:
    with_probes(write_record(tmp_path, made_up("a", 0.5)), {100: 0.4})
    training = {**(made_up("x", 0.5, seed=1).training or {})}
    write_failure(tmp_path, failed("gone", training))
    assert main(["--results", str(tmp_path)]) == 0
    assert "1 of 2 [" in (tmp_path / "README.md").read_text()
    invalidate(tmp_path, "gone")
    assert main(["--results", str(tmp_path)]) == 0
    assert "0 of 1 [" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[invalidated]]\nid = "zz"\nby = "x"\nwhy = "y"', 'no record or failure "zz"'),
        ('[[invalidated]]\nid = "a"\nby = "x"\nwhy = "y"\n' * 2, 'lists "a" twice'),
        ('[[invalidated]]\nid = "a"', "is no list of [[invalidated]]"),
        ('id = "a"', "is no list of [[invalidated]]"),
        ("invalidated = 3", "is no list of [[invalidated]]"),
    ],
)
def test_a_list_of_invalidated_records_that_is_wrong_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    write_record(tmp_path, made_up("a", 0.5))
    (tmp_path / "invalidated.toml").write_text(text)
    assert main(["--results", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error


def test_less_than_one_epoch_is_called_a_single_pass(tmp_path: Path) -> None:
    write_record(tmp_path, made_up("a", 0.5, pairs=100))
    assert main(["--results", str(tmp_path)]) == 0
    assert "0.40 (single pass)" in (tmp_path / "README.md").read_text()


def test_the_board_holds_every_form_and_says_when_it_is_out_of_date(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_record(tmp_path, made_up("a", 0.5))
    assert main(["--results", str(tmp_path), "--check"]) == 1
    assert main(["--results", str(tmp_path)]) == 0
    assert main(["--results", str(tmp_path), "--check"]) == 0
    table = pd.read_csv(tmp_path / "leaderboard.csv")
    assert table["normalised_control"].tolist() == [0.5]
    assert (tmp_path / "site" / "index.html").exists()
    write_record(tmp_path, made_up("b", 0.6, seed=1))
    assert main(["--results", str(tmp_path), "--check"]) == 1
    assert "out of date" in capsys.readouterr().out


def test_names_with_markup_stay_text_on_the_site(tmp_path: Path) -> None:
    write_record(tmp_path, made_up("a", 0.5, method="<script>alert(1)</script>".replace("/", "")))
    main(["--results", str(tmp_path)])
    page = (tmp_path / "site" / "index.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page


def test_a_record_is_written_once(tmp_path: Path) -> None:
    first = made_up("same", 0.5)
    kept = write_record(tmp_path, first)
    write_record(tmp_path, made_up("same", 0.9))
    assert '"value": 0.9' not in kept.read_text()


def test_a_damaged_record_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_record(tmp_path, made_up("a", 0.5))
    damaged = path.read_bytes().replace(b'"value": 0.5', b'"value": 0.6')
    for data, told in (
        (sealed_json({"schema_version": 1}), "is no valid record"),
        (damaged, "is not what was written"),
    ):
        path.write_bytes(data)
        assert main(["--results", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert f"a.json {told}" in error


def test_a_folder_without_records_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--results", str(tmp_path)]) == 2
    assert "holds no record" in capsys.readouterr().err


def test_a_score_is_shown_with_its_interval() -> None:
    assert shown(score("x", 0.5, 0.1)) == "0.500 [0.304, 0.696]"
    assert shown(None) == "-"


@pytest.mark.parametrize(
    ("value", "stderr", "text"),
    [
        (0.00023, 0.00005, "0.000230 [0.000132, 0.000328]"),
        (0.01234, 0.0004, "0.01234 [0.01156, 0.01312]"),
        (-0.0000012, 0.0000051, "-0.0000012 [-0.0000112, 0.0000088]"),
        (90.4651, 0.4, "90.465 [89.681, 91.249]"),
        (1.0, 0.0, "1.000 [1.000, 1.000]"),
    ],
)
def test_a_narrow_interval_is_shown_with_the_decimals_it_needs(value: float, stderr: float, text: str) -> None:
    assert shown(score("x", value, stderr)) == text


def test_a_curve_that_is_not_packed_is_read_as_those_of_older_records_are(tmp_path: Path) -> None:
    path = write_record(tmp_path, made_up("older", 0.5))
    with_probes(path, {100: 0.1, 200: 0.3})
    packed = path.with_suffix(".jsonl.gz")
    probes = read_probes(path, read_record(path))
    assert [row["step"] for row in probes] == [100, 200]
    path.with_suffix(".jsonl").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    assert read_probes(path, read_record(path)) == probes
    path.with_suffix(".jsonl").write_bytes(b"")
    with pytest.raises(UserError, match="remove the record and score the images again"):
        read_probes(path, read_record(path))
