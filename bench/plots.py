"""A run's figures as pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from bench.goals import GRID, p50, p99
from bench.results import Measurement, Results, Sample, throughput
from bench.sections import lengths, peers
from bench.workloads import SHORT, TOKEN_LENGTHS

matplotlib.use("Agg")

COLOURS = {
    "engine": "#8a8a8a",
    "gateway": "#1f6fb4",
    "infinity torch": "#d9822b",
    "infinity optimum": "#b5482a",
    "sentence-transformers": "#6a9a3b",
}
PROCESS_COLOURS = {
    "embedder": "#1f6fb4",
    "preprocess_text": "#5aa9e6",
    "triton": "#8a8a8a",
    "gateway": "#d9822b",
    "launcher": "#c9c9c9",
}
"""From the bottom of a bar to its top."""

DOTS_PER_INCH = 130


def draw_plots(results: Results, folder: Path) -> list[tuple[Path, str]]:
    """Draw what the results have figures for.

    Args:
        results: Of a run.
        folder: Where the pictures go.

    Returns:
        Each picture with its caption.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, caption, draw in PLOTS:
        figure = Figure(figsize=(10, 4), layout="constrained")
        if draw(figure, results):
            path = folder / f"{name}.png"
            for axes in figure.axes:
                if axes.get_yscale() == "linear":
                    axes.set_ylim(0, 1.05 * axes.dataLim.ymax)  # no dot is cut at the edge
            figure.savefig(path, dpi=DOTS_PER_INCH)
            drawn.append((path, caption))
    return drawn


def draw_throughput(figure: Figure, results: Results) -> bool:
    """Draw items per second against clients, a panel for each size of a request."""
    found = [each for each in results if each.section == GRID]
    sizes = sorted({each.load.items_per_request for each in found})
    for axes, size in zip(panels(figure, len(sizes)), sizes, strict=True):
        draw_by_clients(axes, (each for each in found if each.load.items_per_request == size), throughput)
        axes.set(title=f"{size} items a request" if size > 1 else "1 item a request", ylabel="items/s")
    return bool(found)


def draw_latency(figure: Figure, results: Results) -> bool:
    """Draw median and 99th percentile of a request with one short text against clients, with peers where measured."""
    section = peers.NAME if any(each.section == peers.NAME for each in results) else GRID
    found = [
        each
        for each in results
        if (each.section, each.load.workload, each.load.items_per_request) == (section, SHORT, 1)
    ]
    for axes, (name, read) in zip(panels(figure, 2), (("p50", p50), ("p99", p99)), strict=True):
        draw_by_clients(axes, found, read)
        axes.set(title=f"{name}, 1 item a request", ylabel="ms", yscale="log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    return bool(found)


def draw_peers(figure: Figure, results: Results) -> bool:
    """Draw items per second of the service and its peers against clients."""
    found = [
        each
        for each in results
        if (each.section, each.load.workload, each.load.items_per_request) == (peers.NAME, SHORT, 1)
    ]
    [axes] = panels(figure, 1)
    draw_by_clients(axes, found, throughput)
    axes.set(title="12-word texts, 1 item a request", ylabel="items/s")
    return bool(found)


def draw_stages(figure: Figure, results: Results) -> bool:
    """Draw the processor time of an item by process, as stacked bars over the loads."""
    found = [each for each in results if (each.section, each.contender) == (GRID, "gateway")]
    [axes] = panels(figure, 1)
    names = [f"{each.load.items_per_request} by {each.load.concurrency}" for each in found]
    bottoms = [0.0] * len(found)
    for process, colour in PROCESS_COLOURS.items():
        heights = [each.cpu_us_per_item(process) for each in found]
        axes.bar(names, heights, bottom=bottoms, label=process, color=colour, width=0.6)
        bottoms = [bottom + height for bottom, height in zip(bottoms, heights, strict=True)]
    axes.set(title="processor time of a 12-word text", xlabel="items a request by clients", ylabel="µs an item")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return bool(found)


def draw_lengths(figure: Figure, results: Results) -> bool:
    """Draw time per token against length, for the gateway and the engine."""
    left, right = panels(figure, 2)
    drawn = False
    for contender in ("engine", "gateway"):
        points: list[tuple[int, float]] = []
        for tokens in TOKEN_LENGTHS:
            found = results.find(lengths.NAME, contender, lengths.load(lengths.name_length(tokens)))
            if found:
                points.append((tokens, 1e6 / found.median(throughput)))
        drawn |= bool(points)
        tokens_of = [tokens for tokens, _ in points]
        colour = COLOURS[contender]
        left.plot(tokens_of, [time / 1e3 for _, time in points], marker="o", label=contender, color=colour)
        right.plot(tokens_of, [time / tokens for tokens, time in points], marker="o", label=contender, color=colour)
    left.set(title="time of an item", xlabel="tokens of an item", ylabel="ms")
    right.set(title="time of a token", xlabel="tokens of an item", ylabel="µs")
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(TOKEN_LENGTHS, [str(tokens) for tokens in TOKEN_LENGTHS])
        axes.legend(frameon=False)
    return drawn


def panels(figure: Figure, count: int) -> Sequence[Axes]:
    """Return so many plots side by side, without the frame's right and top."""
    row: Sequence[Axes] = list(figure.subplots(1, max(count, 1), squeeze=False)[0])
    for axes in row:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e6e6e6")
        axes.set_axisbelow(True)
    return row[:count]


def draw_by_clients(axes: Axes, found: Iterable[Measurement], read: Callable[[Sample], float]) -> None:
    """Draw a figure against the number of clients, a line for each contender."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for each in found:
        lines.setdefault(each.contender, []).append((each.load.concurrency, each.median(read)))
    for contender, points in lines.items():
        clients, values = zip(*sorted(points), strict=True)
        axes.plot(clients, values, marker="o", label=contender, color=COLOURS.get(contender))
    ticks = sorted({clients for points in lines.values() for clients, _ in points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlabel("clients")
    axes.legend(frameon=False)


Draw = Callable[[Figure, Results], bool]
"""Draws into a figure; False if the results have nothing for it."""

PLOTS: tuple[tuple[str, str, Draw], ...] = (
    ("throughput", "Throughput of 12-word texts against clients, and the engine limit.", draw_throughput),
    ("peers", "Throughput against clients, with other servers on the same weights.", draw_peers),
    ("latency", "Time of a request against clients.", draw_latency),
    ("stages", "Where the processor time of an item goes, by process.", draw_stages),
    ("lengths", "Cost against length.", draw_lengths),
)
