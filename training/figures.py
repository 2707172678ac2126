"""Pictures of a training: separated mixtures, and the curves of its history."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vae_bss_tf import metrics
from vae_bss_tf.audio import spectrogram
from vae_bss_tf.config import AudioConfig
from vae_bss_tf.files import replacing

Float32 = npt.NDArray[np.float32]
Picture = tuple[Float32, float]
"""A picture, `[height, width]` or `[height, width, 3]`, and its white: the value that is drawn brightest."""

_DPI = 110
_RANGE_DB = 60
SPECTROGRAMS = 6  # mixtures of sound in one figure
_PANELS = {
    "elbo": "ELBO, nats",
    "log_likelihood": "log-likelihood, nats",
    "kl": "KL, nats",
    "score": "score of masked sources",
    "remix_si_sdri": "remix SI-SDRi, dB",
}


def separation(
    mixtures: Float32, sources: Float32, truth: Float32 | None = None, *, audio: AudioConfig | None = None
) -> Figure:
    """Draws a column for each mixture: the mixture, each source, their sum, and the true sources.

    Each true source is in the row of its number as the estimate that it is matched to. In a column, white is the
    mixture's brightest pixel for the mixture and the sum, the sources' for the rest.

    Args:
        mixtures: float32 `[num_mixtures, height, width]`, with 3 channels behind it for colour, or
            `[num_mixtures, frames, bins]` of sound.
        sources: float32 `[num_mixtures, num_sources, *shape]`, of the shape of a mixture.
        truth: float32 `[num_mixtures, num_mixed, *shape]`, absent sources zero and last; None to leave it out.
        audio: The spectrogram's settings; None for images. Of sound the first six mixtures are drawn.

    Returns:
        The figure.
    """
    shown = slice(None, None if audio is None else SPECTROGRAMS)
    mixtures, sources = mixtures[shown], sources[shown]
    sums = sources.sum(axis=1) if audio is None else _added(sources, audio)
    rows = {"mixture": mixtures, **{f"source {k + 1}": sources[:, k] for k in range(sources.shape[1])}, "sum": sums}
    if truth is not None:
        aligned = _aligned(truth[shown], sources)
        rows |= {f"true {m + 1}": aligned[:, m] for m in range(aligned.shape[1]) if np.isfinite(aligned[:, m]).any()}
    whites = {True: _brightest(mixtures), False: _brightest(sources)}
    pictures = [list(zip(images, whites[title in ("mixture", "sum")], strict=True)) for title, images in rows.items()]
    return grid(pictures, list(rows), audio=audio)


def _added(sources: Float32, audio: AudioConfig) -> Float32:
    """The sum of the sources' magnitudes, which is the mixture's, compressed."""
    return spectrogram.compress(spectrogram.expand(sources, audio).sum(axis=1), audio)


def _brightest(images: Float32) -> list[float]:
    return [max(float(image.max()), 1e-6) for image in images]


def _aligned(truth: Float32, sources: Float32) -> Float32:
    """The true sources `[num_mixtures, num_sources, ...]` in the order of the estimates; NaN beside a spare one."""
    if truth.shape[1] > sources.shape[1]:
        return truth
    counts = truth.any(axis=tuple(range(2, truth.ndim))).sum(axis=1)
    assignment = metrics.match_sources(-metrics.pairwise_mse(sources, truth), counts)
    aligned = np.full_like(sources, np.nan)
    for m in range(truth.shape[1]):
        present = np.flatnonzero(assignment[:, m] >= 0)
        aligned[present, assignment[present, m]] = truth[present, m]
    return aligned


def grid(
    pictures: Sequence[Sequence[Picture | None]],
    row_titles: Sequence[str],
    column_titles: Sequence[str] = (),
    *,
    audio: AudioConfig | None = None,
) -> Figure:
    """Draws pictures of one shape in rows and columns.

    Args:
        pictures: The rows, all of one length; None, or a picture of NaN, leaves a place empty.
        row_titles: One for each row.
        column_titles: One for each column, or none.
        audio: The spectrogram's settings, with which pictures are `[frames, bins]` and drawn in dB, with Hz and seconds
            on the axes; None for images.

    Returns:
        The figure.
    """
    if audio is None:
        return _mosaic(pictures, row_titles, column_titles)
    left, bottom, width, height = 1.2, 0.5, 1.7, 1.1
    figure = _figure(pictures, column_titles, left, bottom, width, height)
    axes = figure.subplots(len(pictures), len(pictures[0]), squeeze=False)
    seconds, hertz = spectrogram_size(audio)
    for row, row_axes in zip(pictures, axes, strict=True):
        for picture, axis in zip(row, row_axes, strict=True):
            axis.set(xticks=[], yticks=[], xlim=(0, seconds), ylim=(0, hertz))
            if _is_empty(picture):
                axis.set_frame_on(False)
            elif picture is not None:
                _draw_spectrogram(axis, *picture, audio)
    for title, axis in zip(row_titles, axes[:, 0], strict=True):
        axis.set_ylabel(f"{title}\nHz", fontsize=8)
        axis.yaxis.set_major_locator(MaxNLocator(3, prune="upper"))
        axis.tick_params(labelsize=7)
    for axis in axes[-1]:
        axis.set_xlabel("s", fontsize=8)
        axis.xaxis.set_major_locator(MaxNLocator(3, prune="upper"))
        axis.tick_params(labelsize=7)
    for title, axis in zip(column_titles, axes[0], strict=False):
        axis.set_title(title, fontsize=7)
    return figure


def _mosaic(
    pictures: Sequence[Sequence[Picture | None]], row_titles: Sequence[str], column_titles: Sequence[str]
) -> Figure:
    """Draws images as one: many axes take a second, one takes none."""
    shown = next(p for row in pictures for p in row if p is not None and not _is_empty(p))
    height, width, *channels = shown[0].shape
    gap = max(1, round(0.05 * width))
    size = len(pictures) * (height + gap) - gap, len(pictures[0]) * (width + gap) - gap
    canvas = np.ones((*size, *channels), np.float32)
    for r, row in enumerate(pictures):
        for c, picture in enumerate(row):
            if picture is not None and not _is_empty(picture):
                image, white = picture
                top, left = r * (height + gap), c * (width + gap)
                canvas[top : top + height, left : left + width] = np.clip(image / white, 0, 1)
    figure = _figure(pictures, column_titles, 0.9, 0.1, 0.9, 0.9 * min(height / width, 2.0))
    axis = figure.subplots()
    axis.imshow(canvas, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
    axis.set_frame_on(False)
    axis.set_yticks([r * (height + gap) + height / 2 for r in range(len(pictures))], row_titles, fontsize=8)
    columns = [c * (width + gap) + width / 2 for c in range(len(column_titles))]
    axis.set_xticks(columns, column_titles, fontsize=7)
    axis.tick_params(length=0, bottom=False, labelbottom=False, labeltop=True)
    return figure


def _figure(
    pictures: Sequence[Sequence[Picture | None]],
    column_titles: Sequence[str],
    left: float,
    bottom: float,
    width: float,
    height: float,
) -> Figure:
    """An empty figure for a grid of pictures; all sizes in inches."""
    top = 0.1 + 0.14 * max((title.count("\n") + 1 for title in column_titles), default=0)
    size = left + width * len(pictures[0]) + 0.1, bottom + height * len(pictures) + top
    figure = Figure(figsize=size, dpi=_DPI)
    space = {"wspace": 0.06, "hspace": 0.06 * width / height}
    figure.subplots_adjust(left / size[0], bottom / size[1], 1 - 0.1 / size[0], 1 - top / size[1], **space)
    return figure


def _is_empty(picture: Picture | None) -> bool:
    return picture is None or bool(np.isnan(picture[0]).all())


def _draw_spectrogram(axis: Axes, image: Float32, white: float, audio: AudioConfig) -> None:
    seconds, hertz = spectrogram_size(audio)
    axis.imshow(
        decibels(image, white, audio).T, cmap="magma", vmin=-_RANGE_DB, vmax=0, origin="lower",
        extent=(0, seconds, 0, hertz), aspect="auto", interpolation="antialiased",
    )  # fmt: skip


def decibels(image: Float32, white: float, audio: AudioConfig) -> Float32:
    """The level of compressed magnitudes.

    Args:
        image: float32 `[frames, bins]`, compressed magnitudes.
        white: What is 0 dB.
        audio: The spectrogram's settings.

    Returns:
        float32 `[frames, bins]`, at least -60 dB.
    """
    magnitude = spectrogram.expand(image / white, audio)
    return (20 * np.log10(np.maximum(magnitude, 10 ** (-_RANGE_DB / 20)))).astype(np.float32)


def spectrogram_size(audio: AudioConfig) -> tuple[float, float]:
    """Seconds and Hz that a spectrogram spans.

    Args:
        audio: The spectrogram's settings.
    """
    seconds = audio.num_frames * audio.hop_length / audio.sample_rate
    return seconds, audio.num_bins * audio.sample_rate / audio.n_fft


def history(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws a whole training: ELBO, likelihood, KL and the mask network's score, in training and in validation.

    The phases are bands with their names above them. The vertical ranges leave out the first epoch, whose values would
    hide the rest. A history that has none of these quantities, such as a baseline's, is drawn by its loss.

    Args:
        rows: A row for each epoch over all phases: "epoch" (from 0) or "mixtures" (seen so far), "phase" where there
            are several, "loss", and what else the phase measures, of "elbo", "log_likelihood", "kl" and "score", each
            also with "val_" before it.

    Returns:
        The figure.
    """
    panels = [(name, title) for name, title in _PANELS.items() if any(_names(name) & row.keys() for row in rows)]
    panels = panels or [("loss", "loss")]
    seen = all("mixtures" in row for row in rows)
    places = [row["mixtures"] / 1e6 if seen else row["epoch"] + 1 for row in rows]
    figure = Figure(figsize=(9, 0.6 + 1.9 * len(panels)), dpi=_DPI, layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for (name, title), axis in zip(panels, axes, strict=True):
        for key, label, colour in ((name, "training", "C0"), (f"val_{name}", "validation", "C1")):
            if any(key in row for row in rows):
                values = [row.get(key, np.nan) for row in rows]
                axis.plot(places, values, color=colour, label=label, lw=1.2, marker=".", markersize=3)
        _show_after_first_epoch(axis, [[row[key] for key in _names(name) & row.keys()] for row in rows])
        axis.set_ylabel(title)
        axis.grid(alpha=0.3)
    _mark_phases(list(axes), [str(row.get("phase", "")) for row in rows], places)
    axes[-1].set_xlabel("million mixtures seen" if seen else "epoch")
    axes[-1].xaxis.get_major_locator().set_params(integer=not seen)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False)
    return figure


def _names(name: str) -> set[str]:
    return {name, f"val_{name}"}


def _show_after_first_epoch(axis: Axes, values: Sequence[Sequence[float]]) -> None:
    """Sets the vertical range to that of all epochs but the first that has values."""
    epochs = [np.asarray(row)[np.isfinite(row)] for row in values]
    epochs = [row for row in epochs if len(row)]
    if len(epochs) > 2:
        later = np.concatenate(epochs[1:])
        margin = 0.08 * (later.max() - later.min()) or 1.0
        axis.set_ylim(later.min() - margin, later.max() + margin)


def _mark_phases(axes: Sequence[Axes], phases: Sequence[str], places: Sequence[float]) -> None:
    starts = [i for i in range(len(phases)) if i == 0 or phases[i] != phases[i - 1]]
    if len(starts) < 2:
        return
    edges = [*(0.0 if i == 0 else places[i - 1] for i in starts), places[-1]]
    narrow = min(np.diff(edges)) < 0.08 * edges[-1]
    for number, (start, low, high) in enumerate(zip(starts, edges, edges[1:], strict=False)):
        for axis in axes:
            axis.axvspan(low, high, color="grey", alpha=0.15 if number % 2 else 0.04, lw=0)
        axes[0].annotate(
            phases[start],
            ((low + high) / 2, 1.03),
            xycoords=("data", "axes fraction"),
            ha="left" if narrow else "center",
            rotation=30 if narrow else 0,
            fontsize=8,
        )
    for axis in axes:
        axis.set_xlim(0, edges[-1])


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, in one move.

    Args:
        figure: The figure.
        path: The file, ending in ".png".
    """
    with replacing(path) as partial:
        figure.savefig(partial)


def to_array(figure: Figure) -> npt.NDArray[np.uint8]:
    """Draws a figure into an array.

    Args:
        figure: The figure.

    Returns:
        uint8 `[height, width, 4]`, RGBA.
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba()).copy()
