"""Pictures of any size in, one picture for each source out."""

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from vae_bss_tf import runtime
from vae_bss_tf.errors import ConfigError
from vae_bss_tf.files import refuse_existing, replacing
from vae_bss_tf.masking import ratio_shares
from vae_bss_tf.pictures.reading import Float32, Picture, checked, fitted, read
from vae_bss_tf.runtime import LoadedModel
from vae_bss_tf.runtime.remote.options import ServerOptions


@dataclasses.dataclass(frozen=True)
class SeparatedPicture:
    """What separating a picture left.

    Attributes:
        files: The picture of each source, in order.
        shares: Each source's share of the picture's brightness, in [0, 1], of sum 1.
        size: Height and width of these pictures.
        was_cut: Whether they show the middle of the picture at the model's size, not the whole of it at its own.
    """

    files: tuple[Path, ...]
    shares: tuple[float, ...]
    size: tuple[int, int]
    was_cut: bool


class PictureSeparator:
    """Separates pictures of any size by a model of images.

    A picture is brought to the model's size and channels as in training (see `reading.fitted`). Where it has the ratio
    of height to width of the model's input, each source's share of each pixel is enlarged or averaged to the picture's
    own size and multiplied by the picture, so that the sources have its size and sum to it. Any other picture is cut,
    and its sources have the model's size.

    Args:
        model: A model of images, as `runtime.load` gives it.

    Attributes:
        num_sources: Sources of the model.

    Raises:
        ConfigError: The model is one of sound.

    Example:
        >>> separator = PictureSeparator.load("saved_models/mnist")
        >>> first, second = separator.separate(np.zeros((56, 56), np.float32))
        >>> first.shape
        (56, 56)
    """

    def __init__(self, model: LoadedModel) -> None:
        preset = model.metadata.preset
        if preset is not None and preset.audio is not None:
            raise ConfigError(f"{model.metadata.path} is a model of sound; give one of images.")
        self.model = model
        self.shape = tuple(model.metadata.input_shape)
        self.num_sources = len(model.separate(np.zeros(self.shape, np.float32)))

    @classmethod
    def load(cls, path: Path | str, server: ServerOptions | None = None) -> "PictureSeparator":
        """Loads a separator; arguments and errors as `runtime.load`."""
        return cls(runtime.load(path, server=server))

    def separate(self, picture: npt.ArrayLike) -> Float32:
        """Separates a picture.

        Args:
            picture: `[height, width]` or `[height, width, 3]`, in [0, 1].

        Returns:
            float32 `[num_sources, *shape]`, in the channels of the model: of the picture's size, of sum the picture,
            or of the model's where the picture has to be cut.

        Raises:
            DataError: The picture has another shape, or values outside [0, 1] or NaN.
        """
        picture = checked(np.asarray(picture), "the picture")
        small = fitted(picture, self.shape, resize=True, convert=True, name="the picture")
        sources = self.model.separate(small)
        if picture.shape[:2] == self.shape[:2] or self._cuts(picture.shape[:2]):
            return sources
        shape = (*picture.shape[:2], *self.shape[2:])
        large = fitted(picture, shape, resize=False, convert=True, name="the picture")
        shares = ratio_shares(sources[np.newaxis], ops=np)[0]
        shares = np.stack([fitted(share, shape, resize=True, convert=False, name="the mask") for share in shares])
        return shares / shares.sum(axis=0) * large

    def separate_file(self, picture: Picture, output: Path, *, force: bool = False) -> SeparatedPicture:
        """Separates a picture from disk to disk.

        Writes `{name}_source{k}.png` for k = 1 ... K, of 8 bits a channel; the values of a pixel sum to the picture's.

        Args:
            picture: Which one.
            output: Folder to write to; made if missing.
            force: Whether existing files are replaced.

        Returns:
            The files, and what they are.

        Raises:
            DataError: As `reading.read`.
            OutputExistsError: A file to write exists.
        """
        files = places(picture, output, self.num_sources)
        refuse_existing(files, force=force)
        values = read(picture)
        sources = self.separate(values)
        output.mkdir(parents=True, exist_ok=True)
        sums = np.clip(np.round(255 * np.cumsum(sources, axis=0)), 0, 255)  # rounded so that the sum is exact
        for file, levels in zip(files, np.diff(sums, axis=0, prepend=0).astype(np.uint8), strict=True):
            with replacing(file) as partial:
                Image.fromarray(levels).save(partial, format="PNG")
        brightness = sources.reshape(self.num_sources, -1).sum(axis=1)
        shares = brightness / max(float(brightness.sum()), 1e-12)
        height, width = sources.shape[1:3]
        return SeparatedPicture(tuple(files), tuple(map(float, shares)), (height, width), self._cuts(values.shape[:2]))

    def _cuts(self, size: tuple[int, ...]) -> bool:
        """Whether a picture of this height and width has another ratio of both than the model's input."""
        return size[0] * self.shape[1] != size[1] * self.shape[0]


def places(picture: Picture, output: Path, num_sources: int) -> list[Path]:
    """Names the files that a picture is separated into.

    Args:
        picture: Which one.
        output: Folder to write to.
        num_sources: Sources of the model.

    Returns:
        `{name}_source{k}.png`; the pictures of an array have its name and their number in theirs.
    """
    parts = [picture.path.stem, picture.member.replace("/", "-"), "" if picture.index is None else str(picture.index)]
    stem = "_".join(part for part in parts if part)
    return [output / f"{stem}_source{k}.png" for k in range(1, num_sources + 1)]
