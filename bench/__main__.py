"""Command line of the benchmark: `python -m bench [SECTION ...] [--quick]`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import bench
from bench.errors import BenchError
from bench.report import Report, print_tables, write_page
from bench.sections import SECTIONS
from bench.settings import BUILD_DIR, QUICK, BenchSettings
from bench.workbench import Workbench
from launcher.errors import LauncherError

log = logging.getLogger("bench")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the requested sections and return the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    parsed = _make_parser().parse_args(arguments)
    unknown = [name for name in parsed.sections if name not in SECTIONS]
    if unknown:
        log.error("error: no section %s; there are %s", ", ".join(unknown), ", ".join(SECTIONS))
        return 2
    if parsed.quick and parsed.document:
        log.error("error: --document cannot be combined with --quick: the figures of a quick run mean nothing")
        return 2
    length = QUICK if parsed.quick else BenchSettings()
    settings = replace(length, reuse=parsed.reuse, build_dir=parsed.build_dir.resolve())
    results_path = parsed.output or settings.build_dir / "results.json"
    if parsed.redraw:
        write_page(Report.read(results_path))
        return 0
    report = Report.start(settings)
    failed = measure(parsed.sections or list(SECTIONS), settings, report, results_path)
    print_tables(report)
    if parsed.document:
        write_page(report)
    return int(failed)


def measure(sections: Sequence[str], settings: BenchSettings, report: Report, results_path: Path) -> bool:
    """Run sections one after the other on the same servers, and write the results after each.

    A section that fails is left out of the results.

    Returns:
        Whether any section failed.
    """
    failed = False
    with Workbench(settings) as workbench:
        for name in sections:
            log.info("section %s", name)
            try:
                report.results.measurements += SECTIONS[name](workbench)
            except (BenchError, LauncherError) as error:
                log.error("error: %s: %s", name, error)
                failed = True
            report.write(results_path)
    return failed


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=bench.__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"any of {', '.join(SECTIONS)} (default: all)")
    parser.add_argument(
        "--quick", action="store_true", help="exercise every step in little time; the figures mean nothing"
    )
    parser.add_argument("--reuse", action="store_true", help="measure the exports of an earlier run")
    parser.add_argument("--document", action="store_true", help="also update docs/benchmarks.md")
    parser.add_argument("--redraw", action="store_true", help="only update it, from the results of an earlier run")
    parser.add_argument("--output", type=Path, metavar="FILE", help="file for the results (default: in BUILD_DIR)")
    parser.add_argument("--build-dir", type=Path, default=BUILD_DIR, metavar="DIR", help=f"default: {BUILD_DIR}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
