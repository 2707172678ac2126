"""Pictures on disk: found, checked, decoded to float32 in [0, 1], and brought to the size that a model takes."""

import contextlib
import dataclasses
import functools
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from vae_bss_tf.errors import DataError, VaeBssError
from vae_bss_tf.files import find_files
from vae_bss_tf.pictures import ARRAY_SUFFIXES, SUFFIXES

Float32 = npt.NDArray[np.float32]

MAX_PIXELS = 80_000_000
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
_GREY_MODES = ("1", "L", "LA", "La")
_BITS, _PHOTOMETRIC = 258, 262  # TIFF's tags: bits of a value; 0 says that zero is white
_LUMINANCE = np.asarray([0.299, 0.587, 0.114], np.float32)
_MAX_MEMBER_BYTES = 1 << 33


@dataclasses.dataclass(frozen=True)
class Picture:
    """One picture in a file.

    Attributes:
        path: The file.
        member: The array's name in an `.npz`; empty for other files.
        index: Its place in an array that holds several; None where the file or array is one picture.
    """

    path: Path
    member: str = ""
    index: int | None = None

    @property
    def name(self) -> str:
        """What it is called in messages."""
        inside = [self.member] if self.member else []
        inside += [] if self.index is None else [f"picture {self.index}"]
        return f"{self.path} ({', '.join(inside)})" if inside else str(self.path)


find = functools.partial(find_files, suffixes=SUFFIXES, what="picture")
"""Lists the files of pictures under a folder, in the order of their paths; see `files.find_files`."""


def pictures_in(path: Path) -> list[Picture]:
    """Lists the pictures of a file: one, or of an `.npy` or `.npz` all that its arrays hold.

    An array is one picture, `[height, width]` or `[height, width, 3]`, or a stack of them, `[n, height, width]` or
    `[n, height, width, 3]`. A last axis of 3 is always taken for colours; one of 1 is dropped, and one of 2 or 4 is
    refused, since it may hold transparency.

    Args:
        path: The file.

    Returns:
        The pictures, in order.

    Raises:
        DataError: The file is missing or damaged, or an array has another shape or type.
    """
    suffix = path.suffix.lower()
    if suffix not in ARRAY_SUFFIXES:
        return [Picture(path)]
    with _refusing_damage(path):
        if suffix == ".npy":
            return _stacked(Picture(path), np.load(path, mmap_mode="r", allow_pickle=False).shape)
        listed = []
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.file_size > _MAX_MEMBER_BYTES:
                    raise DataError(f"{path} holds an array of {info.file_size:,} bytes; store it as .npy.")
                listed += _stacked(Picture(path, info.filename.removesuffix(".npy")), _header(archive, info))
        if not listed:
            raise DataError(f"{path} holds no array; leave it out.")
        return listed


def read(picture: Picture) -> Float32:
    """Decodes a picture.

    Transparent pixels are laid over black. CMYK, palettes and other colour spaces become RGB, without colour profiles;
    grey of 16 bits keeps them, colour of 16 bits a channel is read with 8, and grey of 16 bits with transparency as
    such colour. The picture is turned upright where its EXIF data says how.

    Args:
        picture: Which one.

    Returns:
        float32 `[height, width]` for grey, `[height, width, 3]` for colour, in [0, 1].

    Raises:
        DataError: The file is missing, empty, damaged, no picture, animated, or larger than 80 million pixels; or it
            holds values outside [0, 1] or NaN.
    """
    with _refusing_damage(picture.path):
        values = _from_array(picture) if picture.path.suffix.lower() in ARRAY_SUFFIXES else _from_image(picture.path)
    return checked(values, picture.name)


def checked(values: npt.NDArray[Any], name: str) -> Float32:
    """Checks that an array is one picture.

    Args:
        values: Any array.
        name: What the picture is called in messages.

    Returns:
        The values in float32, `[height, width]` or `[height, width, 3]`, in [0, 1].

    Raises:
        DataError: The array has another shape, no pixel, or values outside [0, 1] or NaN.
    """
    if values.ndim not in (2, 3) or values.shape[2:] not in ((), (3,)) or not values.size:
        raise DataError(f"{name} has shape {values.shape}; it must be [height, width] or [height, width, 3].")
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:  # NaN included
        raise DataError(
            f"{name} holds values from {values.min():.3g} to {values.max():.3g}; scale them to [0, 1], or store 8 or "
            "16 bits."
        )
    return values.astype(np.float32, copy=False)


def fitted(values: Float32, shape: tuple[int, ...], *, resize: bool, convert: bool, name: str) -> Float32:
    """Brings a picture to a shape.

    A picture of another size is first cut, around its centre, to the wanted ratio of height to width; then each pixel
    is the mean over its area, or, where the picture is enlarged, a linear interpolation. Colour becomes grey by its
    luminance (ITU-R 601), grey becomes colour by three equal channels. All of these keep sums: what sources add up to
    before, they add up to afterwards.

    Args:
        values: float32 `[height, width]` or `[height, width, 3]`, in [0, 1].
        shape: The shape wanted, `(height, width)` or `(height, width, 3)`.
        resize: Whether another size is allowed.
        convert: Whether grey in place of colour is allowed, and the reverse.
        name: What the picture is called in messages.

    Returns:
        float32 of that shape, in [0, 1].

    Raises:
        DataError: Size or channels differ, and may not.
    """
    height, width, *channels = shape
    if (values.ndim == 3) != bool(channels):
        if not convert:
            found, wanted = ("in colour", "grey") if values.ndim == 3 else ("grey", "colour")
            raise DataError(
                f"{name} is {found}, where {wanted} is expected; bring all pictures to one (--channels 1 or 3 of "
                "training.fit does)."
            )
        values = np.repeat(values[..., np.newaxis], 3, axis=-1) if channels else values @ _LUMINANCE
    if values.shape[:2] != (height, width):
        if not resize:
            rows, columns = values.shape[:2]
            raise DataError(
                f"{name} is {rows}x{columns} pixels, height x width, where {height}x{width} is expected; bring all "
                f"pictures to one size (--size {height}x{width} or another of training.fit does)."
            )
        planes = [_resized(plane, height, width) for plane in np.atleast_3d(values).transpose(2, 0, 1)]
        values = np.stack(planes, axis=-1).reshape(shape)
    return np.clip(values, 0, 1).astype(np.float32)


def _resized(plane: Float32, height: int, width: int) -> Float32:
    """Cuts and resizes one channel, float32 `[height, width]`."""
    enlarged = plane.shape[0] < height or plane.shape[1] < width
    method = Image.Resampling.BILINEAR if enlarged else Image.Resampling.BOX
    image = Image.fromarray(np.ascontiguousarray(plane, np.float32))
    return np.asarray(ImageOps.fit(image, (width, height), method), np.float32)


@contextlib.contextmanager
def _refusing_damage(path: Path) -> Iterator[None]:
    """Turns whatever decoding raises about a file into one line that names it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, on stderr
            yield
    except VaeBssError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path} is not there; a picture must stay where it is while it is read.") from error
    except Image.DecompressionBombError as error:
        raise DataError(_too_large(path)) from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path} is no PNG, JPEG, WebP, BMP or TIFF; give a picture.") from error
    except Exception as error:  # Pillow and NumPy raise errors of many kinds
        reason = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path} cannot be read as a picture ({reason}); repair it, or leave it out.") from error


def _too_large(path: Path) -> str:
    return f"{path} has more than {MAX_PIXELS // 10**6} million pixels; make it smaller first."


def _from_image(path: Path) -> Float32:
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes); give a picture.")
    with Image.open(path, formats=_FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise DataError(_too_large(path))
        if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # cameras add previews to a JPEG as MPO
            raise DataError(f"{path} holds {getattr(image, 'n_frames', 1)} pictures; save one of them alone.")
        if image.mode == "I":
            raise DataError(f"{path} holds integers of 32 bits; save it with 8 or 16.")
        image.load()
        tags = getattr(image, "tag_v2", {})
        (bits,) = tags.get(_BITS, (16,))[:1]
        values = _decoded(ImageOps.exif_transpose(image), 2**bits - 1)
        # Pillow turns round pictures of 8 bits in which zero is white, but no others.
        is_negative = image.mode.startswith(("I;16", "F")) and tags.get(_PHOTOMETRIC) == 0
        return 1 - values if is_negative else values


def _decoded(image: Image.Image, white: int) -> Float32:
    """The values of a picture; `white` stands for 1 where they have up to 16 bits."""
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.float32)
        if "transparency" in image.info:  # the level that stands for a transparent pixel
            values[values == image.info["transparency"]] = 0
        return values / np.float32(white)
    if image.mode == "F":
        return np.asarray(image, np.float32)
    grey = image.mode in _GREY_MODES
    if image.has_transparency_data:
        values = np.asarray(image.convert("RGBA"), np.float32) / np.float32(255)
        colours = values[..., :3] * values[..., 3:]
        return colours[..., 0] if grey else colours
    return np.asarray(image.convert("L" if grey else "RGB"), np.float32) / np.float32(255)


def _header(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[int, ...]:
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        return reader(file)[0]


def _stacked(picture: Picture, shape: tuple[int, ...]) -> list[Picture]:
    coloured = shape[-1:] in ((1,), (3,)) and len(shape) > 2
    rank = len(shape) - coloured
    if rank == 3 and shape[-1] in (2, 4):
        raise DataError(
            f"{picture.name} has shape {shape}, whose last axis may hold transparency; leave that channel out, or "
            "store [n, height, width, 1]."
        )
    if rank not in (2, 3) or 0 in shape:
        raise DataError(
            f"{picture.name} has shape {shape}; it must be [height, width] or [height, width, 3], or a stack of them."
        )
    height, width = shape[rank - 2 : rank]
    if height * width > MAX_PIXELS:
        raise DataError(_too_large(picture.path))
    if rank == 2:
        return [picture]
    return [dataclasses.replace(picture, index=index) for index in range(shape[0])]


def _from_array(picture: Picture) -> Float32:
    found = picture.path.stat()
    array = _array(picture.path, picture.member, (found.st_mtime_ns, found.st_size, found.st_ino))
    values = np.asarray(array if picture.index is None else array[picture.index])
    values = values[..., 0] if values.ndim == 3 and values.shape[-1] == 1 else values
    if values.dtype == np.uint8 or values.dtype == np.uint16:
        return values.astype(np.float32) / np.float32(np.iinfo(values.dtype).max)
    if values.dtype.kind not in "fb":
        raise DataError(f"{picture.name} holds {values.dtype}; store uint8, uint16, or floats in [0, 1].")
    return values.astype(np.float32)


@functools.lru_cache(maxsize=1)
def _array(path: Path, member: str, version: tuple[int, ...]) -> npt.NDArray[Any]:
    """An array of a file, kept for its next picture; `version` changes where the file is written again."""
    if not member:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    with np.load(path, allow_pickle=False) as archive:
        return archive[member]
