"""Pictures of an evaluation: all systems side by side, the latent space, and score against time."""

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.evaluation.judging import SYSTEMS
from training.evaluation.report import Comparison
from training.figures import upright
from vae_bss_tf import metrics
from vae_bss_tf.datasets.image_mixtures import EvaluationSet
from vae_bss_tf.datasets.sound_mixtures import AudioEvaluationSet
from vae_bss_tf.model import MultiSourceVAE

Float32 = npt.NDArray[np.float32]

_SHOWN = 6
_MAP_POINTS = 1_500
_MAP_CELLS = 16
_TRAVERSED = 8
_TRAVERSAL = np.linspace(-2.5, 2.5, 11, dtype=np.float32)
_MARKERS = {"untrained": "s", "trained": "o"}


def systems_grid(comparison: Comparison) -> Figure:
    """Draws a row for each mixture and a column for each system, its matched outputs one below the other.

    Outputs that were matched to no source stand below the matched ones. White is the gain of a source. In spectrograms
    time runs to the right and pitch upwards.

    Args:
        comparison: The comparison.

    Returns:
        The figure.
    """
    truth = comparison.truth
    number = min(_SHOWN, len(truth.mixtures))
    columns = [("mixture", truth.mixtures[:number, None]), ("truth", truth.sources[:number])]
    for result in comparison.results:
        if SYSTEMS[result.system].kind != "trivial":
            columns.append((SYSTEMS[result.system].title, _ordered_outputs(result.outputs[:number], truth, number)))
    sound = isinstance(truth, AudioEvaluationSet)
    if sound:
        columns = [(title, upright(images)) for title, images in columns]
    height = max(len(images[0]) for _, images in columns)
    figure = Figure(figsize=(0.95 * len(columns), 0.72 * height * number + 0.4), dpi=90, layout="constrained")
    axes = figure.subplots(number, len(columns), squeeze=False)
    for (title, images), column in zip(columns, axes.T, strict=True):
        column[0].set_title(title.replace(", ", ",\n").replace(" (", "\n("), fontsize=7)
        for stack, axis in zip(images, column, strict=True):
            padded = np.pad(stack, ((0, height - len(stack)), (0, 0), (0, 0)), constant_values=np.nan)
            tile = np.pad(padded, ((0, 0), (0, 1), (0, 0)), constant_values=np.nan).reshape(-1, stack.shape[2])
            white = float(truth.mixtures.max()) if title == "mixture" else 1 / truth.sources.shape[1]
            _show(axis, tile, white, sound)
            axis.axis("off")
    return figure


def _ordered_outputs(outputs: Float32, truth: EvaluationSet, number: int) -> Float32:
    assignment = metrics.match_sources(-metrics.pairwise_mse(outputs, truth.sources[:number]), truth.counts[:number])
    rows = []
    for row, matched in zip(outputs, assignment, strict=True):
        first = [k for k in matched if k >= 0]
        rows.append(row[[*first, *(k for k in range(len(row)) if k not in first)]])
    return np.stack(rows)


def latent_map(model: MultiSourceVAE, truth: EvaluationSet) -> Figure:
    """Draws the latents of separated sources in two dimensions, by t-SNE, and decoded examples along the map.

    Args:
        model: The model.
        truth: Test mixtures, whose true sources' classes colour the points.

    Returns:
        The figure: on the left one point for each source, on the right the decoded source nearest to each cell's
        centre.
    """
    import threadpoolctl
    from sklearn.manifold import TSNE

    number = min(len(truth.mixtures), _MAP_POINTS // truth.sources.shape[1])
    outputs = model.predict({"mixture": truth.mixtures[:number]}, batch_size=500, verbose=0)
    scores = -metrics.pairwise_mse(outputs["sources"], truth.sources[:number])
    assignment = metrics.match_sources(scores, truth.counts[:number])
    present = assignment >= 0
    latents = metrics.take_matched(outputs["latent_mean"], assignment)[present]
    decoded = metrics.take_matched(outputs["estimates"], assignment)[present]
    labels = truth.labels[:number][present]
    perplexity = min(30.0, (len(latents) - 1) / 3)
    with threadpoolctl.threadpool_limits(1):  # on busy cores its threads wait for each other far longer than they work
        points = TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(latents)

    figure = Figure(figsize=(11, 5.4), dpi=90, layout="constrained")
    left, right = figure.subplots(1, 2)
    for label in np.unique(labels):
        chosen = points[labels == label]
        left.scatter(*chosen.T, s=6, color=_colour(int(label)), label=str(label))
    left.legend(title="class", fontsize=7, markerscale=2, loc="upper right")
    left.set(xticks=[], yticks=[], title=f"{len(points)} separated sources: posterior means, t-SNE")
    sound = isinstance(truth, AudioEvaluationSet)
    canvas = _examples_on_map(points, upright(decoded) if sound else decoded)
    _show(right, canvas, None, sound)
    right.set(xticks=[], yticks=[], title="their decoded sources, at the same places")
    return figure


def _show(axis: Axes, image: Float32, white: float | None, sound: bool) -> None:
    """Draws an image with square pixels, or a spectrogram, which has more bins than the picture, as the axis is."""
    axis.imshow(
        image,
        cmap="gray",
        vmin=0,
        vmax=white,
        interpolation="antialiased" if sound else "nearest",
        aspect="auto" if sound else "equal",
    )


def _colour(label: int) -> tuple[float, ...]:
    return matplotlib.colormaps["tab20"](label % 20)


def _examples_on_map(points: Float32, decoded: Float32) -> Float32:
    low, high = points.min(axis=0), points.max(axis=0)
    place = (points - low) / (high - low) * _MAP_CELLS
    height, width = decoded.shape[1:]
    canvas = np.zeros((_MAP_CELLS * height, _MAP_CELLS * width), np.float32)
    for column, row in np.ndindex(_MAP_CELLS, _MAP_CELLS):
        distance = np.linalg.norm(place - (column + 0.5, row + 0.5), axis=1)
        nearest = int(np.argmin(distance))
        if distance[nearest] < 0.75:
            top = (_MAP_CELLS - 1 - row) * height
            canvas[top : top + height, column * width : (column + 1) * width] = decoded[nearest]
    return canvas


def latent_traversal(model: MultiSourceVAE, truth: EvaluationSet) -> Figure:
    """Draws one source as single dimensions of its latent go from -2.5 to 2.5.

    Args:
        model: The model.
        truth: Test mixtures; the source traversed is the strongest one of the first, and the dimensions are those whose
            posterior means vary most over all.

    Returns:
        The figure: a row for each dimension.
    """
    outputs = model.predict({"mixture": truth.mixtures}, batch_size=500, verbose=0)
    means = outputs["latent_mean"]
    spread = means.reshape(-1, means.shape[-1]).std(axis=0)
    dimensions = np.argsort(-spread)[:_TRAVERSED]
    strongest = int(np.argmax(metrics.output_shares(outputs["sources"][:1])[0]))
    latents = np.tile(means[0, strongest], (len(dimensions), len(_TRAVERSAL), 1))
    for row, dimension in enumerate(dimensions):
        latents[row, :, dimension] = _TRAVERSAL
    decoded = np.asarray(model.decode(latents))
    sound = isinstance(truth, AudioEvaluationSet)
    if sound:
        decoded = upright(decoded)
    figure = Figure(figsize=(0.6 * len(_TRAVERSAL) + 0.9, 0.6 * len(dimensions) + 0.5), dpi=90, layout="constrained")
    axes = figure.subplots(len(dimensions), len(_TRAVERSAL), squeeze=False)
    for row, dimension, images in zip(axes, dimensions, decoded, strict=True):
        row[0].set_ylabel(f"z[{dimension}]", rotation=0, ha="right", va="center", fontsize=8)
        for axis, image in zip(row, images, strict=True):
            _show(axis, image, float(decoded.max()), sound)
            axis.set(xticks=[], yticks=[])
    for axis, value in zip(axes[0], _TRAVERSAL, strict=True):
        axis.set_title(f"{value:+.1f}", fontsize=8)
    return figure


def score_against_time(comparison: Comparison) -> Figure:
    """Draws each system's PSNR against the time it took to fit and the time it takes to separate one mixture.

    Oracles are left out; the dashed line is the mixture shared equally.

    Args:
        comparison: The comparison.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(10, 4.2), dpi=90, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for index, result in enumerate(comparison.results):
        info = SYSTEMS[result.system]
        summary = result.summaries()["psnr_halved"]
        if result.system == "mixture/k":
            for axis in (left, right):
                axis.axhline(summary.mean, color="grey", lw=1, ls="--", label=info.title)
        if info.kind not in _MARKERS:
            continue
        for axis, seconds in ((left, result.budget["seconds"]), (right, 1000 * result.seconds_per_mixture)):
            axis.plot(seconds, summary.mean, marker=_MARKERS[info.kind], color=f"C{index % 10}", linestyle="none")
            axis.annotate(info.title, (seconds, summary.mean), textcoords="offset points", xytext=(5, 4), fontsize=8)
    if left.get_legend_handles_labels()[0]:
        left.legend(frameon=False, fontsize=8)
    left.set(xscale="log", xlabel="time to fit, s", ylabel="PSNR, sources at half scale (dB)")
    right.set(xscale="log", xlabel="time to separate one mixture, ms")
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.margins(x=0.4, y=0.1)
    return figure
