"""Pictures of an evaluation: all systems side by side, the latent space, and score against time."""

import textwrap

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from training.evaluation.report import HEADINGS, Comparison
from training.figures import Picture, decibels, grid, spectrogram_size
from vae_bss_tf import metrics
from vae_bss_tf.datasets.image_mixtures import EvaluationSet
from vae_bss_tf.domains import domain_of
from vae_bss_tf.model import MultiSourceVAE

Float32 = npt.NDArray[np.float32]

_SHOWN = 4
_MAP_POINTS = 1_500
_MAP_CELLS = 16
_TRAVERSED = 8
_TRAVERSAL = np.linspace(-2.5, 2.5, 11, dtype=np.float32)
_MARKERS = {"untrained": "sD", "trained": "o^"}


def systems_grid(comparison: Comparison) -> Figure:
    """Draws a column for each system and, for each of a few mixtures, a row for each output.

    The outputs are in the order of the true sources that they are matched to, those matched to none below. White is the
    brightest pixel of a mixture's true sources, and of the mixture itself in its column. Where the true sources are not
    known, the outputs are in their own order and white is the brightest of the last system's. Trivial systems are left
    out.

    Args:
        comparison: The comparison.

    Returns:
        The figure.
    """
    truth = comparison.truth
    number = min(_SHOWN, len(truth.mixtures))
    columns = {"mixture": truth.mixtures[:number, None]}
    if comparison.has_truth:
        columns["truth"] = truth.sources[:number]
    for result in comparison.results:
        if result.system.kind != "trivial":
            title = textwrap.fill(result.system.title, 12, break_on_hyphens=False, break_long_words=False)
            outputs = result.outputs[:number]
            columns[title] = _ordered_outputs(outputs, truth, number) if comparison.has_truth else outputs
    rows: list[list[Picture | None]] = []
    for i, k in np.ndindex(number, max(images.shape[1] for images in columns.values())):
        of_sources = truth.sources if comparison.has_truth else comparison.results[-1].outputs
        whites = [float((truth.mixtures if title == "mixture" else of_sources)[i].max()) for title in columns]
        stacks = zip(columns.values(), whites, strict=True)
        rows.append([(images[i, k], max(white, 1e-6)) if k < images.shape[1] else None for images, white in stacks])
    titles = [f"{i + 1}: source {k + 1}" for i, k in np.ndindex(number, len(rows) // number)]
    return grid(rows, titles, list(columns), audio=truth.audio)


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
    classes = np.unique(labels)
    few = len(classes) <= matplotlib.colormaps["tab20"].N
    scattered = left.scatter(*points.T, s=6, c=labels, cmap="tab20" if few else "viridis")
    if few:
        handles, numbers = scattered.legend_elements(num=None)
        names = [truth.class_names[i] for i in classes] if truth.class_names else numbers
        legend = figure.legend(handles, names, title="class", fontsize=7, loc="outside left upper")
        for text in legend.get_texts():
            text.set_parse_math(False)  # a folder's name may hold dollar signs
    else:
        figure.colorbar(scattered, ax=left, location="left", label="class")
    left.set(xticks=[], yticks=[], title=f"{len(points)} separated sources: posterior means, t-SNE")
    audio = truth.audio
    if audio is not None:
        seconds, hertz = spectrogram_size(audio)
        right.set_xlabel(f"each from 0 to {seconds:.2g} s, and from 0 to {hertz:,.0f} Hz")
        decoded = np.stack([decibels(image, max(float(image.max()), 1e-6), audio) for image in decoded])
    canvas = _examples_on_map(points, domain_of(audio).upright(decoded))
    right.imshow(canvas, cmap="gray" if audio is None else "magma", interpolation="antialiased", aspect="auto")
    right.set(xticks=[], yticks=[], title="their decoded sources, at the same places")
    return figure


def _examples_on_map(points: Float32, decoded: Float32) -> Float32:
    low, high = points.min(axis=0), points.max(axis=0)
    place = (points - low) / (high - low) * _MAP_CELLS
    height, width, *channels = decoded.shape[1:]
    empty = 1 if channels else np.nan  # white
    canvas = np.full((_MAP_CELLS * height, _MAP_CELLS * width, *channels), empty, np.float32)
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
    white = float(decoded.max())
    rows: list[list[Picture | None]] = [[(image, white) for image in images] for images in decoded]
    values = [f"{value:+.1f}" for value in _TRAVERSAL]
    return grid(rows, [f"z[{dimension}]" for dimension in dimensions], values, audio=truth.audio)


def score_against_time(comparison: Comparison) -> Figure:
    """Draws each system's score against the time it took to fit and the time it takes to separate one mixture.

    The score is the one that systems are compared by; the legend lists the best first. Oracles are left out; the dashed
    line is the mixture shared equally.

    Args:
        comparison: The comparison.

    Returns:
        The figure.
    """
    score = comparison.domain.paired_score
    figure = Figure(figsize=(11, 4.2), dpi=90, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    means = [(float(result.scores[score].mean()), result) for result in comparison.results]
    drawn = 0
    for mean, result in sorted(means, key=lambda pair: -pair[0]):
        system = result.system
        if system.name == "mixture/k":
            for axis in (left, right):
                axis.axhline(mean, color="grey", lw=1, ls="--", label=system.title)
        if system.kind not in _MARKERS:
            continue
        style = {"marker": _MARKERS[system.kind][drawn // 10], "color": f"C{drawn % 10}", "alpha": 0.8}
        drawn += 1
        for axis, seconds in ((left, result.budget["seconds"]), (right, 1000 * result.seconds_per_mixture)):
            place = ([seconds], [mean]) if seconds > 0 else ([], [])  # NMF of sound is not fitted before
            axis.plot(*place, linestyle="none", label=system.title, **style)
    left.set(xscale="log", xlabel="time to fit, s", ylabel=f"{HEADINGS[score]}, dB")
    right.set(xscale="log", xlabel="time to separate one mixture, ms")
    for axis in (left, right):
        axis.xaxis.set_major_formatter("{x:,g}")
        axis.xaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.0, 0.4)))  # where one decade is shown
        axis.grid(alpha=0.3)
        axis.margins(0.1)
    figure.legend(*left.get_legend_handles_labels(), loc="outside right center", frameon=False)
    return figure
