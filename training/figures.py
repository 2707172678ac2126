"""Pictures of a training: separated mixtures and the curves of its history."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vae_bss_tf.files import replacing


def separation(
    mixtures: npt.NDArray[np.float32],
    sources: npt.NDArray[np.float32],
    truth: npt.NDArray[np.float32] | None = None,
    *,
    spectrograms: bool = False,
) -> Figure:
    """Draws a column for each mixture: the mixture, each source, their sum, and the true sources.

    In a column, white is the mixture's brightest pixel for the mixture and the sum, the sources' for the rest.

    Args:
        mixtures: `[num_mixtures, height, width]`.
        sources: `[num_mixtures, num_sources, height, width]`.
        truth: `[num_mixtures, num_mixed, height, width]`, or None to leave it out.
        spectrograms: Whether height is frames and width bins: time then runs to the right and pitch upwards.

    Returns:
        The figure.
    """
    if spectrograms:
        mixtures, sources = upright(mixtures), upright(sources)
        truth = None if truth is None else upright(truth)
    rows = [("mixture", mixtures)]
    rows += [(f"source {k + 1}", sources[:, k]) for k in range(sources.shape[1])]
    rows += [("sum", sources.sum(axis=1))]
    if truth is not None:
        rows += [(f"true {m + 1}", truth[:, m]) for m in range(truth.shape[1])]
    aspect = min(mixtures.shape[1] / mixtures.shape[2], 2.0)
    figure = Figure(figsize=(0.9 * len(mixtures) + 0.8, 0.9 * aspect * len(rows) + 0.2), dpi=110, layout="constrained")
    axes = figure.subplots(len(rows), len(mixtures), squeeze=False)
    for (title, images), row in zip(rows, axes, strict=True):
        brightest = (mixtures if title in ("mixture", "sum") else sources).reshape(len(mixtures), -1).max(axis=1)
        for image, white, axis in zip(images, brightest, row, strict=True):
            axis.imshow(
                image, cmap="gray", vmin=0, vmax=max(float(white), 1e-6), interpolation="nearest", aspect="auto"
            )
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(title, rotation=0, ha="right", va="center")
    return figure


def upright(spectrograms: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Turns `[..., frames, bins]` into `[..., bins, frames]`, the lowest bin last: pitch upwards, time to the right."""
    return spectrograms.swapaxes(-1, -2)[..., ::-1, :]


def history(rows: Sequence[dict[str, float]]) -> Figure:
    """Draws the ELBO, the likelihood and the KL of each epoch, in training and on held-out mixtures.

    A baseline's history holds none of them: its loss is drawn.

    Args:
        rows: A dictionary for each epoch, as `callbacks.read_history` gives them.

    Returns:
        The figure.
    """
    panels = [
        ("elbo", "ELBO (nats, at the final KL weight)"),
        ("log_likelihood", "log-likelihood (nats)"),
        ("kl", "KL (nats)"),
    ]
    panels = [panel for panel in panels if panel[0] in rows[0]] or [("loss", "loss")]
    epochs = [row["epoch"] + 1 for row in rows]
    figure = Figure(figsize=(4 * len(panels), 3.2), dpi=110, layout="constrained")
    for axis, (name, title) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        axis.plot(epochs, [row[name] for row in rows], label="training", lw=1.2)
        if f"val_{name}" in rows[0]:
            axis.plot(epochs, [row[f"val_{name}"] for row in rows], label="validation", lw=1.2)
        axis.set(title=title, xlabel="epoch")
        axis.grid(alpha=0.3)
    figure.axes[0].legend(frameon=False)
    return figure


def course(stages: Sequence[tuple[str, int, Sequence[dict[str, float]]]]) -> Figure:
    """Draws a training of several stages: the ELBO, likelihood and KL of held-out mixtures, and what is minimised.

    That is another quantity in each stage, so it is drawn of the last alone.

    Args:
        stages: Of each its name, the mixtures of an epoch, and a dictionary for each epoch, as
            `callbacks.read_history` gives them.

    Returns:
        The figure; each stage begins where the one before ends.
    """
    panels = [
        ("val_elbo", "ELBO (nats), validation"),
        ("val_log_likelihood", "log-likelihood (nats), validation"),
        ("val_kl", "KL (nats), validation"),
        ("loss", "loss in training, last stage"),
    ]
    figure = Figure(figsize=(4 * len(panels), 3.2), dpi=80, layout="constrained")
    for axis, (quantity, title) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        seen = 0
        for name, mixtures, rows in stages:
            places = [(seen + mixtures * (i + 1)) / 1e6 for i in range(len(rows))]
            if quantity != "loss" or name == stages[-1][0]:
                axis.plot(
                    places, [row.get(quantity, np.nan) for row in rows], label=name, lw=1.2, marker=".", markersize=3
                )
            seen += mixtures * len(rows)
        axis.set(title=title, xlabel="million mixtures")
        axis.grid(alpha=0.3)
    figure.axes[0].legend(frameon=False, fontsize="x-small")
    return figure


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
