"""The latent cache: shared by runs, never mistaken; and what the bundled autoencoder loses."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pyarrow.parquet import ParquetFile
from safetensors.torch import load_file, save_file

from benchmark.base.errors import UserError
from benchmark.base.images import encode_png
from benchmark.engine import latents
from benchmark.engine.bases import Base, load_base
from benchmark.engine.corruptions import damage
from benchmark.engine.latents import encode_moments, moments_at, pixels, round_trip, to_uint8
from benchmark.engine.shards import Lost, Row, write_shard

Images = NDArray[np.uint8]


def write_images(folder: Path, images: Images) -> Path:
    rows = [Row(f"k{i}", encode_png(image), None, {}, 64, 64, "{}") for i, image in enumerate(images)]
    commit = write_shard(folder, "train-000000", "plan", [], rows, Lost())
    assert commit.file is not None
    return folder / commit.file


def moments_of_shards(base: Base, shards: list[Path], cache: Path) -> torch.Tensor:
    """All moments of shard files."""
    sized = [(shard, ParquetFile(shard).metadata.num_rows) for shard in shards]
    return moments_at(base, sized, np.arange(sum(count for _, count in sized)), cache).in_memory()


def cached_files(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.safetensors"))


def test_moments_are_those_of_the_images_in_the_order_of_the_shards(
    base: Base, renders: Images, tmp_path: Path
) -> None:
    shards = [write_images(tmp_path / "a", renders[:3]), write_images(tmp_path / "b", renders[3:5])]
    moments = moments_of_shards(base, shards, tmp_path / "cache")
    posterior = base.vae.encode(pixels(renders[:5]) * 2 - 1).latent_dist
    assert moments.shape == (5, 2, 4, 16, 16)
    torch.testing.assert_close(moments[:, 0], posterior.mean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(moments[:, 1], posterior.std, rtol=1e-4, atol=1e-4)


def test_rows_come_from_the_shards_they_lie_in_and_in_the_order_asked_for(
    base: Base, renders: Images, tmp_path: Path
) -> None:
    sizes = [3, 1, 4]
    ends = np.cumsum(sizes)
    shards = [
        (write_images(tmp_path / str(end), renders[end - size : end]), size)
        for size, end in zip(sizes, ends, strict=True)
    ]
    every = encode_moments(base, renders[:8], "all")
    for places in ([7, 0, 3, 3, 4, 2], [5], [1, 1, 1]):
        moments = moments_at(base, shards, np.array(places), tmp_path / "cache").in_memory()
        assert torch.equal(moments, every[torch.tensor(places)])


def test_of_a_shard_of_which_little_is_wanted_only_that_is_encoded_and_kept(
    base: Base, renders: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard, cache, encoded = (write_images(tmp_path / "a", renders[:8]), 8), tmp_path / "cache", []

    def counted(base: Base, images: Images, what: str) -> torch.Tensor:
        encoded.append(len(images))
        return encode_moments(base, images, what)

    monkeypatch.setattr(latents, "encode_moments", counted)
    some = moments_at(base, [shard], np.array([6, 1, 6]), cache).in_memory()
    assert torch.equal(moments_at(base, [shard], np.array([1, 6]), cache).in_memory(), some[:2].flip(0))
    assert encoded == [2]
    moments_at(base, [shard], np.array([1, 5]), cache).in_memory()
    assert encoded == [2, 2]
    every = moments_at(base, [shard], np.arange(4), cache).in_memory()  # half of it: the whole, for all that comes
    assert encoded == [2, 2, 8]
    assert torch.equal(moments_at(base, [shard], np.array([6, 1, 6]), cache).in_memory(), some)
    assert torch.equal(moments_at(base, [shard], np.arange(4), cache).in_memory(), every)
    assert encoded == [2, 2, 8]


def test_what_little_is_wanted_of_several_shards_is_encoded_together(
    base: Base, renders: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = [(write_images(tmp_path / str(i), renders[4 * i : 4 * i + 4]), 4) for i in range(4)]
    encoded = []

    def counted(base: Base, images: Images, what: str) -> torch.Tensor:
        encoded.append(len(images))
        return encode_moments(base, images, what)

    monkeypatch.setattr(latents, "encode_moments", counted)
    places = np.array([13, 5, 2, 5, 8, 9, 10])  # one row of three shards, one of them twice; three of another
    moments = moments_at(base, shards, places, tmp_path / "cache").in_memory()
    assert encoded == [4, 3]
    assert torch.equal(moments, encode_moments(base, renders, "all")[torch.from_numpy(places)])
    assert torch.equal(moments_at(base, shards, places, tmp_path / "cache").in_memory(), moments)
    assert encoded == [4, 3]


def test_no_more_rows_of_several_shards_than_asked_for_lie_in_one_file(
    base: Base, renders: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a million damaged images would else be held in memory several times over before they are written."""
    shards = [(write_images(tmp_path / str(i), renders[4 * i : 4 * i + 4]), 4) for i in range(4)]
    monkeypatch.setattr(latents, "_TOGETHER", 3)
    places = np.array([13, 5, 2, 5, 8, 9, 10, 6])
    moments = moments_at(base, shards, places, tmp_path / "cache", ("blur",))
    assert [len(file) for file in moments.files] == [3, 3, 1]
    blurred = np.stack([damage(image, ["blur"]) for image in renders])
    assert torch.equal(moments.in_memory(), encode_moments(base, blurred, "all")[torch.from_numpy(places)])
    assert len(list(tmp_path.glob("cache/*/rows-blur-*"))) == 3


def test_an_image_has_the_same_bits_whichever_others_are_encoded_with_it(base: Base, renders: Images) -> None:
    many = np.concatenate([renders, renders[:, ::-1], renders[:, :, ::-1]])[:40]  # more than a batch
    together = encode_moments(base, many, "all")
    for rows in ([5], [0, 39], [3, 1, 38, 20, 9], list(range(33, 40))):
        assert torch.equal(encode_moments(base, many[rows], "some"), together[rows])


def test_a_second_run_reads_the_cache(base: Base, renders: Images, tmp_path: Path) -> None:
    shard, cache = write_images(tmp_path / "a", renders[:2]), tmp_path / "cache"
    first = moments_of_shards(base, [shard], cache)
    (file,) = cached_files(cache)
    kept = file.stat().st_mtime_ns
    assert torch.equal(moments_of_shards(base, [shard], cache), first)
    assert file.stat().st_mtime_ns == kept
    save_file({"moments": first + 1}, file)  # of a version that kept no hash: made anew
    assert torch.equal(moments_of_shards(base, [shard], cache), first)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_bit_of_a_cache_file_that_flipped_is_never_trained_on(
    share: float, base: Base, renders: Images, tmp_path: Path
) -> None:
    shard, cache = write_images(tmp_path / "a", renders[:2]), tmp_path / "cache"
    first = moments_of_shards(base, [shard], cache)
    (file,) = cached_files(cache)
    data = bytearray(file.read_bytes())
    header = 8 + int.from_bytes(data[:8], "little")
    data[header + int(share * (len(data) - header))] ^= 1
    file.write_bytes(data)
    with pytest.raises(UserError, match="is damaged; delete it"):
        moments_of_shards(base, [shard], cache)
    file.unlink()
    assert torch.equal(moments_of_shards(base, [shard], cache), first)


def test_the_same_images_elsewhere_share_the_cache_and_others_do_not(
    base: Base, renders: Images, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    first = moments_of_shards(base, [write_images(tmp_path / "a", renders[:2])], cache)
    again = moments_of_shards(base, [write_images(tmp_path / "copy", renders[:2])], cache)
    assert torch.equal(first, again)
    assert len(cached_files(cache)) == 1
    other = moments_of_shards(base, [write_images(tmp_path / "other", renders[2:4])], cache)
    assert not torch.equal(first, other)
    assert len(cached_files(cache)) == 2


def test_another_autoencoder_has_a_cache_of_its_own(base: Base, renders: Images, tmp_path: Path) -> None:
    folder, cache = tmp_path / "base", tmp_path / "cache"
    shutil.copytree(base.folder, folder)
    shard = write_images(tmp_path / "a", renders[:2])
    first = moments_of_shards(base, [shard], cache)
    assert torch.equal(moments_of_shards(load_base(str(folder)), [shard], cache), first)
    assert len(cached_files(cache)) == 1
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    save_file({name: tensor * 1.01 for name, tensor in load_file(weights).items()}, weights)
    other = moments_of_shards(load_base(str(folder)), [shard], cache)
    assert not torch.equal(other, first)
    assert len(cached_files(cache)) == 2


def test_a_damaged_cache_file_is_named(base: Base, renders: Images, tmp_path: Path) -> None:
    shard, cache = write_images(tmp_path / "a", renders[:2]), tmp_path / "cache"
    moments_of_shards(base, [shard], cache)
    (file,) = cached_files(cache)
    os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(UserError, match=f"{file.name} is damaged"):
        moments_of_shards(base, [shard], cache)


def test_batches_do_not_change_moments(base: Base, renders: Images) -> None:
    many = np.concatenate([renders, renders, renders[:3]])  # more than one batch of 32
    moments = encode_moments(base, many, "test")
    torch.testing.assert_close(moments[16:32], moments[:16], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(moments[32:], moments[:3], rtol=1e-4, atol=1e-5)


def test_the_bundled_autoencoder_gives_renders_back_at_32_decibels(base: Base, renders: Images) -> None:
    back = round_trip(base, renders)
    assert back.shape == renders.shape
    error = np.square(back.astype(np.float64) - renders).mean(axis=(1, 2, 3))
    assert 10 * np.log10(255**2 / error.mean()) >= 32


def test_bytes_survive_the_way_to_floats_and_back() -> None:
    image = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    assert (to_uint8(pixels(image)) == image).all()
