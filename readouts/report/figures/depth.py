"""What becomes of tokens from layer to layer: how long they are, how many directions they use."""

from collections.abc import Mapping, Sequence

from readouts.report.figures.base import SMALL, colours_of, sheet, svg


def by_depth(layers: Sequence[str], norms: Sequence[float], ranks: Mapping[str, Sequence[float]]) -> str:
    """Two panels against the layer: mean norm of a token, and effective ranks.

    Args:
        layers: their names, the shallowest first.
        norms: of each.
        ranks: which rank -> its value in each layer.
    """
    figure, (norm, rank) = sheet(1, 2, height=2.4)
    positions = list(range(len(layers)))
    norm.plot(positions, norms, "o-", color="#1d2126", markersize=4, linewidth=1.4)
    for name, colour in colours_of(ranks).items():
        rank.plot(positions, ranks[name], "o-", color=colour, markersize=4, linewidth=1.4, label=name)
    step = max(1, -(-len(layers) // 7))
    for axes in (norm, rank):
        axes.set_xticks(positions[::step], list(layers)[::step])
        axes.set(xlabel="layer", ylim=(0, None))
    norm.set(ylabel="mean norm of a token")
    rank.set(ylabel="effective rank")
    rank.legend(frameon=False, fontsize=SMALL)
    return svg(figure)
