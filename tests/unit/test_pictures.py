"""Folders of pictures: what is read and how, the splits, the cache, and every way in which a picture can be bad."""

import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vae_bss_tf.config import DataConfig
from vae_bss_tf.datasets import decoded, load_bank
from vae_bss_tf.datasets.image_mixtures import training_mixtures
from vae_bss_tf.datasets.own_pictures import picture_shape
from vae_bss_tf.errors import ConfigError, DataError
from vae_bss_tf.pictures.reading import MAX_PIXELS, Picture, fitted, pictures_in, read
from vae_bss_tf.presets import for_size, get_preset
from vae_bss_tf.sizing import sized

SHAPE = (6, 8)
SPLITS = ("train", "validation", "test")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv(decoded.CACHE_VARIABLE, str(folder))
    return folder


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=shape, dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty grey pictures, one of them of a name with a space and an emoji."""
    made = tmp_path / "my pictures"
    made.mkdir()
    for i in range(20):
        name = "a caf\u00e9 \U0001f600.png" if i == 0 else f"{i:02d}.png"
        Image.fromarray(values(*SHAPE, seed=i)).save(made / name)
    return made


def test_pictures_are_mixtures_split_by_a_hash_and_decoded_once(folder: Path) -> None:
    banks = {split: load_bank("images", split, folder) for split in SPLITS}
    assert [len(banks[split]) for split in SPLITS] == [16, 2, 2]
    found = np.concatenate([bank.items for bank in banks.values()]) / banks["train"].full_scale
    expected = {values(*SHAPE, seed=i).tobytes() for i in range(20)}
    assert {np.round(255 * image).astype(np.uint8).tobytes() for image in found} == expected
    assert not banks["train"].has_truth
    again = load_bank("images", "train", folder)
    assert isinstance(again.items, np.memmap)
    assert np.array_equal(again.items, banks["train"].items)
    assert load_bank("images", "train", folder, data=DataConfig("images", (2,))).has_truth
    drawn = next(iter(training_mixtures(again, num_mixed=(1,), batch_size=4, seed=0)))["mixture"].numpy()
    assert all((np.abs(again.items / again.full_scale - image).max(axis=(1, 2)) < 1e-6).any() for image in drawn)


def test_folders_of_splits_are_kept(folder: Path) -> None:
    for i, path in enumerate(sorted(folder.glob("*.png"))):
        part = folder / ("test" if i < 3 else "train")
        part.mkdir(exist_ok=True)
        shutil.move(path, part / path.name)
    assert [len(load_bank("images", split, folder)) for split in SPLITS] == [15, 2, 3]


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp", "jpg"])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_every_format_is_read(tmp_path: Path, suffix: str, channels: tuple[int, ...]) -> None:
    image = np.full((16, 16, *channels), 200, np.uint8)
    image[:8] = 40
    options = {"webp": {"lossless": True}, "jpg": {"quality": 95}}.get(suffix, {})
    Image.fromarray(image).save(tmp_path / f"one.{suffix.upper()}", **options)
    found = read(Picture(tmp_path / f"one.{suffix.upper()}"))
    assert found.shape in (image.shape, (16, 16, 3))  # WebP has no grey
    wanted = fitted(found, image.shape, resize=False, convert=True, name="one")
    np.testing.assert_allclose(wanted, image / 255, atol=0.02 if suffix == "jpg" else 1e-6)


def test_arrays_are_pictures_or_stacks_of_them(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", values(6, 8))
    np.save(tmp_path / "stack.npy", values(5, 6, 8, 3))
    np.savez_compressed(tmp_path / "both.npz", a=values(6, 8) / 255, b=values(4, 6, 8, 1))
    counted = {name: len(pictures_in(tmp_path / name)) for name in ("one.npy", "stack.npy", "both.npz")}
    assert counted == {"one.npy": 1, "stack.npy": 5, "both.npz": 5}
    last = pictures_in(tmp_path / "stack.npy")[-1]
    np.testing.assert_allclose(read(last), values(5, 6, 8, 3)[-1] / 255, rtol=1e-6)
    first, *_, last = pictures_in(tmp_path / "both.npz")
    np.testing.assert_allclose(read(first), values(6, 8) / 255, rtol=1e-6)
    np.testing.assert_allclose(read(last), values(4, 6, 8, 1)[-1, ..., 0] / 255, rtol=1e-6)


def test_grey_of_16_bits_keeps_them(tmp_path: Path) -> None:
    image = np.arange(48, dtype=np.uint16).reshape(6, 8) * 1_000
    Image.fromarray(image).save(tmp_path / "one.png")
    np.testing.assert_allclose(read(Picture(tmp_path / "one.png")), image / 65_535, rtol=1e-6)
    Image.fromarray(image).save(tmp_path / "negative.tif", tiffinfo={262: 0})  # zero is white, as in X-rays
    np.testing.assert_allclose(read(Picture(tmp_path / "negative.tif")), 1 - image / 65_535, rtol=1e-6)
    Image.fromarray(image / np.float32(65_535)).save(tmp_path / "floats.tif", tiffinfo={262: 0})
    np.testing.assert_allclose(read(Picture(tmp_path / "floats.tif")), 1 - image / 65_535, rtol=1e-5)
    Image.fromarray(image).save(tmp_path / "transparent.png", transparency=47_000)
    found = read(Picture(tmp_path / "transparent.png"))
    np.testing.assert_allclose(found, np.where(image == 47_000, 0, image) / 65_535, rtol=1e-6)


def test_grey_of_12_bits_goes_up_to_white(tmp_path: Path) -> None:
    """Written by hand, since Pillow reads them alone: 4 x 4 values, two in three bytes."""
    tags = {256: 4, 257: 4, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 4, 279: 24}
    content = struct.pack("<2sHI", b"II", 42, 32) + b"\xff\xff\xff" * 8 + struct.pack("<H", len(tags))
    content += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items()) + bytes(4)
    (tmp_path / "white.tif").write_bytes(content)
    np.testing.assert_array_equal(read(Picture(tmp_path / "white.tif")), 1)


def test_an_archive_without_arrays_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "none.npz")
    with pytest.raises(DataError, match="holds no array"):
        pictures_in(tmp_path / "none.npz")


def test_an_array_that_is_written_again_is_read_again(tmp_path: Path) -> None:
    for level in (0.25, 0.75):
        np.savez(tmp_path / "one.npz", np.full(SHAPE, level))
        np.testing.assert_allclose(read(*pictures_in(tmp_path / "one.npz")), level)


def test_transparent_pixels_are_laid_over_black(tmp_path: Path) -> None:
    image = np.full((6, 8, 4), 255, np.uint8)
    image[:3, :, 3] = 51
    Image.fromarray(image).save(tmp_path / "one.png")
    found = read(Picture(tmp_path / "one.png"))
    np.testing.assert_allclose(found[:3], 0.2, rtol=1e-5)
    np.testing.assert_allclose(found[3:], 1)


def test_palettes_and_cmyk_become_colour(tmp_path: Path) -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    image[:8, :, 0] = 255
    Image.fromarray(image).quantize(4).save(tmp_path / "palette.png")
    Image.fromarray(image).convert("CMYK").save(tmp_path / "cmyk.tif")
    for name in ("palette.png", "cmyk.tif"):
        np.testing.assert_allclose(read(Picture(tmp_path / name)), image / 255, atol=1e-6)


def test_a_photograph_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(values(6, 8)).save(tmp_path / "one.png", exif=exif)
    np.testing.assert_allclose(read(Picture(tmp_path / "one.png")), np.rot90(values(6, 8), -1) / 255, rtol=1e-6)


def test_another_size_is_cut_around_the_centre_and_averaged() -> None:
    image = np.zeros((4, 8), np.float32)
    image[:, :2] = image[:, 6:] = 1
    image[0, 2] = 1
    found = fitted(image, (2, 2), resize=True, convert=False, name="one")
    np.testing.assert_allclose(found, [[0.25, 0], [0, 0]], atol=1e-6)
    colour = fitted(image, (2, 2, 3), resize=True, convert=True, name="one")
    np.testing.assert_allclose(colour, np.repeat(found[..., None], 3, axis=-1), atol=1e-6)


@pytest.mark.parametrize("wanted", [(28, 28), (28, 20), (64, 64)])
def test_every_size_becomes_the_one_wanted(wanted: tuple[int, int]) -> None:
    """Sums stay what they are, whatever the size: half of a picture is half of what it becomes."""
    rng = np.random.default_rng(0)
    sizes = [(side, side) for side in range(5, 130)] + [tuple(rng.integers(1, 300, 2)) for _ in range(100)]
    for size in [*sizes, (200, 200), (400, 400), (800, 800)]:
        image = rng.uniform(size=size).astype(np.float32)
        found = fitted(image, wanted, resize=True, convert=False, name="one")
        assert found.shape == wanted
        half = fitted(image / 2, wanted, resize=True, convert=False, name="one")
        np.testing.assert_allclose(half, found / 2, atol=1e-5)


def header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    described = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + described + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def animate(path: Path) -> None:
    frames = [Image.fromarray(values(*SHAPE, seed=seed)) for seed in (1, 2)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda path: path.write_text("a picture"), "is no PNG, JPEG, WebP, BMP or TIFF"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "damaged": (truncate, "cannot be read as a picture"),
    "30,000 x 30,000": (lambda path: path.write_bytes(header(30_000, 30_000)), "more than 80 million pixels"),
    "10,000 x 10,000": (lambda path: path.write_bytes(header(10_000, 10_000)), "more than 80 million pixels"),
    "animated": (animate, "holds 2 pictures"),
    "32 bits": (
        lambda path: Image.fromarray(np.zeros(SHAPE, np.int32)).save(path, format="TIFF"),
        "holds integers of 32 bits",
    ),
    "another size": (lambda path: Image.fromarray(values(3, 5)).save(path), "is 3x5 pixels.*--size 6x8"),
    "colour": (lambda path: Image.fromarray(values(6, 8, 3)).save(path), "in colour, where grey is.*--channels"),
}


def load_all(folder: Path) -> None:
    for split in SPLITS:
        load_bank("images", split, folder, input_shape=SHAPE)


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=list(BAD))
def test_a_bad_picture_is_named(folder: Path, make: Callable[[Path], object], message: str) -> None:
    make(folder / "07.png")
    with pytest.raises(DataError, match=rf"07\.png.*{message}"):
        load_all(folder)


ARRAYS = {
    "negative": (np.full(SHAPE, -0.1), "values from"),
    "beyond": (np.full(SHAPE, 1.5), "values from"),
    "not a number": (np.full(SHAPE, np.nan), "values from"),
    "integers": (np.zeros(SHAPE, np.int64), "int64"),
    "a row": (np.zeros(5), "shape"),
    "transparency": (np.zeros((*SHAPE, 4), np.uint8), "may hold transparency"),
    "objects": (np.array([{}] * 2), "cannot be read"),
}


@pytest.mark.parametrize(("array", "message"), ARRAYS.values(), ids=list(ARRAYS))
def test_a_bad_array_is_named(folder: Path, array: np.ndarray, message: str) -> None:
    np.save(folder / "own.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=rf"own\.npy.*{message}"):
        load_all(folder)


def test_a_folder_with_one_picture_cannot_be_split(tmp_path: Path) -> None:
    Image.fromarray(values(*SHAPE)).save(tmp_path / "one.png")
    with pytest.raises(DataError, match=r"holds 1 pictures.*at least 8"):
        load_bank("images", "train", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no picture"):
        load_bank("images", "train", tmp_path / "empty")
    with pytest.raises(DataError, match="no folder"):
        load_bank("images", "train", tmp_path / "missing")
    with pytest.raises(DataError, match="--data-dir"):
        load_bank("images", "train")


def test_a_picture_that_vanishes_while_the_folder_is_read_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vae_bss_tf.datasets import own_pictures

    def vanishing(picture: Picture) -> np.ndarray:
        picture.path.unlink(missing_ok=True)
        return read(picture)

    monkeypatch.setattr(own_pictures, "read", vanishing)
    with pytest.raises(DataError, match=r"\.png is not there"):
        load_bank("images", "train", folder, input_shape=SHAPE)


@pytest.mark.parametrize(("standing", "missing"), [("validation", "train/ and no test"), ("test", "train")])
def test_a_split_of_ones_own_is_never_passed_over(folder: Path, standing: str, missing: str) -> None:
    (folder / standing).mkdir()
    with pytest.raises(DataError, match=f"has {standing}/ but no {missing}/"):
        load_bank("images", "train", folder)


def test_the_size_is_that_of_the_pictures_to_train_on(folder: Path) -> None:
    for split in ("train", "test"):
        (folder / split).mkdir()
        for i in range(8):
            Image.fromarray(values(3, 5, seed=i)).save(folder / split / f"{i}.png")
    assert picture_shape(folder, DataConfig("images", (1,))) == (3, 5)  # not of what lies beside


def test_the_settings_agree_with_the_model() -> None:
    preset = get_preset("images")
    with pytest.raises(ConfigError, match="--size and --channels set both"):
        preset.replace(data=preset.data.replace(size=(64, 64)))
    with pytest.raises(ConfigError, match="--size and --channels set both"):
        preset.replace(data=preset.data.replace(channels=3))


def test_an_interrupted_decoding_resumes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vae_bss_tf.datasets import own_pictures

    monkeypatch.setattr(decoded, "SAVE_EVERY", 1)
    seen: list[Path] = []

    def counting(picture: Picture) -> np.ndarray:
        if len(seen) == 5:
            seen.append(picture.path)
            raise KeyboardInterrupt
        seen.append(picture.path)
        return read(picture)

    monkeypatch.setattr(own_pictures, "read", counting)
    with pytest.raises(KeyboardInterrupt):
        load_bank("images", "train", folder, input_shape=SHAPE)
    load_bank("images", "train", folder, input_shape=SHAPE)
    assert len(seen) == 16 + 1
    assert len(set(seen)) == 16


def test_networks_pick_their_sizes_from_the_picture() -> None:
    base = get_preset("images").model
    grey = sized((28, 28), base)
    assert (grey.convolutions, grey.mask_channels, grey.mask_patch) == ((24, 48), (32, 64, 128), 1)
    assert (grey.hidden_units, grey.upsampling) == ((700, 600, 500, 400, 300), ())
    for shape, halvings, patch in [((64, 64, 3), 3, 2), ((128, 128), 4, 4), ((128, 96, 3), 4, 4)]:
        model = sized(shape, base)
        assert (len(model.convolutions), len(model.upsampling), model.mask_patch) == (halvings, halvings, patch)
        assert model.hidden_units == (400, 300)
    assert sized((30, 30), base).mask_channels == (32, 64)  # 30 is halved once
    assert sized((31, 45), base).mask_channels == (32,)
    assert sized((8, 8), base).convolutions == ()


def test_larger_pictures_have_more_of_the_elbo_and_smaller_batches() -> None:
    base = get_preset("images")
    assert for_size(base, (28, 28)).recipe == base.recipe
    large = for_size(base, (64, 64, 3)).recipe
    assert [phase.name for phase in large.phases] == [phase.name for phase in base.recipe.phases]
    assert large.phases[0].share > base.recipe.phases[0].share
    assert all(phase.batch_size == 32 and not phase.jit_compile for phase in large.phases)
    weights = [for_size(base, (side, side, 3)).recipe.phases[0].kl_weight for side in (28, 64, 128)]
    assert weights == [0.5, 0.5, 2.0]  # which grows with the sum over pixels that the likelihood is


def test_a_picture_of_more_pixels_is_refused_whatever_its_sides() -> None:
    assert 30_000**2 > MAX_PIXELS > 8_000**2


@pytest.mark.parametrize("data", [{"size": (3,)}, {"size": (0, 5)}, {"channels": 2}])
def test_sizes_and_channels_are_checked(data: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        DataConfig("images", (1,), **data)
