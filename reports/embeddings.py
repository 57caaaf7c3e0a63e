"""Figure of what a model has made of its inputs: PCA and t-SNE, by emotion and by speaker."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from reports.style import MM, EmotionStyle, emotion_styles, group_styles, paper_style, short_names

MOST_POINTS = 1000  # drawn at random where there are more: t-SNE takes its time
MOST_NAMED = 14  # speakers in the legend; more are counted instead
FEWEST_POINTS = 5
_PERPLEXITY = 30.0


def plot_embeddings(
    features: np.ndarray, emotions: Sequence[str], speakers: Sequence[str]
) -> Figure:
    """PCA above, t-SNE below; coloured by emotion on the left and by speaker on the right.

    t-SNE keeps who is near whom; its distances between groups mean nothing.

    Args:
        features: (N, D).
        emotions: (N,) true classes.
        speakers: (N,) names; where none is known the right side is left out.

    Raises:
        ValueError: there are fewer than 5 rows, or not one name for each.
    """
    if not len(features) == len(emotions) == len(speakers):
        raise ValueError(
            f"{len(features)} embeddings, {len(emotions)} emotions and {len(speakers)} speakers"
        )
    if len(features) < FEWEST_POINTS:
        raise ValueError(f"{len(features)} embeddings are too few to draw; {FEWEST_POINTS} needed")
    chosen = np.arange(len(features))
    if len(features) > MOST_POINTS:
        chosen = np.sort(np.random.default_rng(0).permutation(len(features))[:MOST_POINTS])
    flat, share, near = _project(features[chosen])
    colourings = {"emotion": np.array(emotions)[chosen]}
    if any(speakers):
        colourings["speaker"] = np.array(speakers)[chosen]
    with paper_style():
        rows = _legend_rows(list(colourings.values()))
        panel, foot, columns = 40 * MM, 0.115 * rows + 0.03, len(colourings)
        size = (5 * MM + panel * columns, 2 * panel + foot + 0.22)
        tight = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, hspace=0.0, wspace=0.02)
        figure = Figure(figsize=size, layout=tight)
        axes = figure.subplots(3, columns, squeeze=False, height_ratios=(panel, panel, foot))
        for column, (kind, names) in enumerate(colourings.items()):
            known = sorted(set(names.tolist()))
            styles = emotion_styles(known) if kind == "emotion" else group_styles(known)
            _draw_points(axes[0, column], flat, names, styles)
            _draw_points(axes[1, column], near, names, styles)
            axes[0, column].set_title(f"by {kind}")
            _draw_legend(axes[2, column], kind, styles)
        axes[0, 0].set_ylabel(f"PCA, {share:.0%} of variance")
        of_all = f", {len(chosen)} of {len(features)}" if len(chosen) < len(features) else ""
        axes[1, 0].set_ylabel(f"t-SNE{of_all}")
        figure.draw_without_rendering()
    return figure


def _project(features: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    """(N, 2) principal components, their share of the variance, and (N, 2) t-SNE."""
    values = features.astype(np.float64)
    components = min(50, len(values) - 1, values.shape[1])
    pca = PCA(components, random_state=0)
    reduced = pca.fit_transform(values)
    flat = np.pad(reduced[:, :2], ((0, 0), (0, max(0, 2 - components))))
    perplexity = min(_PERPLEXITY, (len(values) - 1) / 3)
    near = TSNE(perplexity=perplexity, init="pca" if components > 1 else "random", random_state=0)
    share = float(np.nansum(pca.explained_variance_ratio_[:2]))
    return flat, share, near.fit_transform(reduced)


def _draw_points(
    axis: Axes, points: np.ndarray, names: np.ndarray, styles: dict[str, EmotionStyle]
) -> None:
    size = 2.4 if len(points) <= 400 else 1.7
    for name, style in styles.items():
        x, y = points[names == name].T
        axis.plot(x, y, style.marker, color=style.colour, ms=size, mew=0, alpha=0.8)
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(True)
    axis.set_box_aspect(1)


def _legend_rows(colourings: Sequence[np.ndarray]) -> int:
    counts = [len(np.unique(names)) for names in colourings]
    return max(1 if count > MOST_NAMED else -(-count // 2) for count in counts)


def _draw_legend(axis: Axes, kind: str, styles: dict[str, EmotionStyle]) -> None:
    axis.axis("off")
    if len(styles) > MOST_NAMED:
        axis.text(0.5, 1, f"{len(styles)} {kind}s", ha="center", va="top", size=6.5)
        return
    handles = [
        Line2D([], [], color=style.colour, marker=style.marker, ls="", ms=3, mew=0)
        for style in styles.values()
    ]
    legend = axis.legend(
        handles,
        short_names(list(styles)),
        loc="upper center",
        ncols=2,
        labelspacing=0.2,
        handletextpad=0.1,
        borderaxespad=0,
        borderpad=0,
    )
    legend.set_in_layout(False)
