"""A split's sources in memory: what every data set gives and every mixture is drawn from."""

import dataclasses
import zlib

import numpy as np
import numpy.typing as npt

from vae_bss_tf.errors import DataError

SPLITS = ("train", "validation", "test")
_FINGERPRINT_ROWS = 64


@dataclasses.dataclass(frozen=True)
class SourceBank:
    """The sources of one split. No source stands in two splits.

    Attributes:
        name: Name of the data set.
        split: "train", "validation" or "test".
        items: uint8 or float32 `[num_items, *shape]`, the sources at full scale.
        labels: int64 `[num_items]`, the class of each source.
        full_scale: The value of `items` that stands for 1.
        has_truth: Whether `items` are single sources, of which mixtures with a known truth are made. False where they
            are mixtures themselves.
        class_names: The name of each class, at its label; empty where labels are their own names.

    Example:
        >>> bank = load_bank("digits", "test")
        >>> bank.shape, bank.full_scale
        ((8, 8), 16.0)
    """

    name: str
    split: str
    items: npt.NDArray[np.generic]
    labels: npt.NDArray[np.int64]
    full_scale: float
    has_truth: bool = True
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.items) == 0:
            raise DataError(f"{self.name} {self.split}: no sources were found; check the data folder.")
        if len(self.items) != len(self.labels):
            raise DataError(
                f"{self.name} {self.split}: {len(self.items)} sources but {len(self.labels)} labels; "
                "the files do not belong together."
            )

    def __len__(self) -> int:
        return len(self.items)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one source."""
        return self.items.shape[1:]

    def fingerprint(self) -> str:
        """A short name of what the bank holds, made of its size and some of its sources: the same for the same data."""
        rows = np.unique(np.linspace(0, len(self) - 1, min(len(self), _FINGERPRINT_ROWS)).astype(int))
        some = np.ascontiguousarray(self.items[rows])
        return f"{len(self)}-{zlib.crc32(some.data):08x}"

    def checksum(self) -> int:
        """CRC-32 of the sources, by which several hosts see that they have the same."""
        return zlib.crc32(np.ascontiguousarray(self.items).data)
