"""Plots of a run's figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from bench.results import Measurement, Results, Sample, p50, p99, throughput
from bench.sections import make_length_load, name_length
from bench.workloads import SHORT, TOKEN_LENGTHS

matplotlib.use("Agg")

CONTENDER_COLOURS = {
    "engine": "#8a8a8a",
    "gateway": "#1f6fb4",
    "infinity torch": "#d9822b",
    "infinity optimum": "#b5482a",
    "sentence-transformers": "#6a9a3b",
}
# From the bottom of a bar to its top.
PROCESS_COLOURS = {
    "embedder": "#1f6fb4",
    "preprocess_text": "#5aa9e6",
    "triton": "#8a8a8a",
    "gateway": "#d9822b",
    "launcher": "#c9c9c9",
}
DOTS_PER_INCH = 130


def draw_plots(results: Results, folder: Path) -> list[tuple[Path, str]]:
    """Draw the plots for which there are results.

    Args:
        results: Results of a run.
        folder: Folder for the image files.

    Returns:
        The file and the caption of each plot.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, caption, draw in PLOTS:
        figure = Figure(figsize=(10, 4), layout="constrained")
        if draw(figure, results):
            path = folder / f"{name}.png"
            for axes in figure.axes:
                if axes.get_yscale() == "linear":
                    axes.set_ylim(0, 1.05 * axes.dataLim.ymax)  # keep markers off the edge
            figure.savefig(path, dpi=DOTS_PER_INCH)
            drawn.append((path, caption))
    return drawn


def draw_throughput(figure: Figure, results: Results) -> bool:
    """Draw items per second by number of clients, one panel per request size."""
    found = [each for each in results if each.section == "throughput"]
    sizes = sorted({each.load.items_per_request for each in found})
    for axes, size in zip(make_panels(figure, len(sizes)), sizes, strict=True):
        draw_by_clients(axes, (each for each in found if each.load.items_per_request == size), throughput)
        axes.set(title=f"{size} items per request" if size > 1 else "1 item per request", ylabel="items/s")
    return bool(found)


def draw_peers(figure: Figure, results: Results) -> bool:
    """Draw items per second of the service and its peers by number of clients."""
    found = select_single_texts(results, "peers")
    [axes] = make_panels(figure, 1)
    draw_by_clients(axes, found, throughput)
    axes.set(title="12-word texts, 1 item per request", ylabel="items/s")
    return bool(found)


def draw_latency(figure: Figure, results: Results) -> bool:
    """Draw the median and the 99th percentile of the latency by number of clients, with peers if measured."""
    found = select_single_texts(results, "peers") or select_single_texts(results, "throughput")
    for axes, (name, read) in zip(make_panels(figure, 2), (("p50", p50), ("p99", p99)), strict=True):
        draw_by_clients(axes, found, read)
        axes.set(title=f"{name}, 1 item per request", ylabel="ms", yscale="log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    return bool(found)


def draw_cpu_time(figure: Figure, results: Results) -> bool:
    """Draw the CPU time per item by process, as one stacked bar per load."""
    found = [each for each in results if (each.section, each.contender) == ("throughput", "gateway")]
    [axes] = make_panels(figure, 1)
    names = [f"{each.load.items_per_request} by {each.load.concurrency}" for each in found]
    bottoms = [0.0] * len(found)
    for process, colour in PROCESS_COLOURS.items():
        heights = [each.cpu_us_per_item(process) for each in found]
        axes.bar(names, heights, bottom=bottoms, label=process, color=colour, width=0.6)
        bottoms = [bottom + height for bottom, height in zip(bottoms, heights, strict=True)]
    axes.set(title="CPU time of a 12-word text", xlabel="items per request by clients", ylabel="µs per item")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return bool(found)


def draw_lengths(figure: Figure, results: Results) -> bool:
    """Draw the time per item and per token by length, for the gateway and the engine."""
    left, right = make_panels(figure, 2)
    drawn = False
    for contender in ("engine", "gateway"):
        points: list[tuple[int, float]] = []
        for tokens in TOKEN_LENGTHS:
            found = results.find("lengths", contender, make_length_load(name_length(tokens)))
            if found:
                points.append((tokens, 1e6 / found.median(throughput)))
        drawn |= bool(points)
        lengths = [tokens for tokens, _ in points]
        colour = CONTENDER_COLOURS[contender]
        left.plot(lengths, [time / 1e3 for _, time in points], marker="o", label=contender, color=colour)
        right.plot(lengths, [time / tokens for tokens, time in points], marker="o", label=contender, color=colour)
    left.set(title="time per item", xlabel="tokens per item", ylabel="ms")
    right.set(title="time per token", xlabel="tokens per item", ylabel="µs")
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(TOKEN_LENGTHS, [str(tokens) for tokens in TOKEN_LENGTHS])
        axes.legend(frameon=False)
    return drawn


def select_single_texts(results: Results, section: str) -> list[Measurement]:
    """Return a section's measurements with one short text per request."""
    wanted = (section, SHORT, 1)
    return [each for each in results if (each.section, each.load.workload, each.load.items_per_request) == wanted]


def make_panels(figure: Figure, count: int) -> Sequence[Axes]:
    """Return plots side by side, without the right and top edges of the frame."""
    row: Sequence[Axes] = list(figure.subplots(1, max(count, 1), squeeze=False)[0])
    for axes in row:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e6e6e6")
        axes.set_axisbelow(True)
    return row[:count]


def draw_by_clients(axes: Axes, found: Iterable[Measurement], read: Callable[[Sample], float]) -> None:
    """Draw a figure by number of clients, one line per contender."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for each in found:
        lines.setdefault(each.contender, []).append((each.load.concurrency, each.median(read)))
    for contender, points in lines.items():
        clients, values = zip(*sorted(points), strict=True)
        axes.plot(clients, values, marker="o", label=contender, color=CONTENDER_COLOURS.get(contender))
    ticks = sorted({clients for points in lines.values() for clients, _ in points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlabel("clients")
    if lines:  # Matplotlib warns of an empty legend
        axes.legend(frameon=False)


# Draws into a figure; returns False if there are no results for it.
Draw = Callable[[Figure, Results], bool]

# File name, caption and function of each plot.
PLOTS: tuple[tuple[str, str, Draw], ...] = (
    ("throughput", "Throughput of 12-word texts by number of clients, with the engine limit.", draw_throughput),
    ("peers", "Throughput by number of clients, against other servers on the same weights.", draw_peers),
    ("latency", "Request latency by number of clients.", draw_latency),
    ("stages", "CPU time per item, by process.", draw_cpu_time),
    ("lengths", "Cost by length.", draw_lengths),
)
