import re
from dataclasses import asdict
from pathlib import Path

import pytest

from bench.plots import draw_plots
from bench.report import PAGE, SECTION_TITLES, Report, print_tables, write_page
from bench.results import Results
from bench.sections import SECTIONS
from bench.settings import BenchSettings
from tests.bench.published_page import read_published_results


def test_the_published_page_is_what_a_run_with_its_figures_writes(tmp_path: Path) -> None:
    published = PAGE.read_text(encoding="utf-8")
    [(started, *lines)] = re.findall(r"^Measured (\S+)\.\n\n(.*)\n\n(.*)$", published, re.MULTILINE)
    machine, versions = (dict([line.split(" ", 1)]) for line in lines)
    report = Report(started, machine, versions, asdict(BenchSettings()), read_published_results())
    write_page(report, tmp_path / PAGE.name)
    assert hide_goals(tmp_path / PAGE.name) == hide_goals(PAGE)
    assert {path.name for path in (tmp_path / PAGE.stem).iterdir()} == {
        path.name for path in PAGE.with_suffix("").iterdir()
    }


def test_a_run_of_one_section_is_drawn_without_the_plots_of_others(tmp_path: Path) -> None:
    lengths = [each for each in read_published_results() if each.section == "lengths"]
    assert [path.stem for path, _ in draw_plots(Results(lengths), tmp_path)] == ["lengths"]


@pytest.mark.parametrize(("section", "has_goals"), [("triton", False), ("throughput", True)])
def test_what_was_measured_is_printed_without_goals_that_it_does_not_reach(
    capsys: pytest.CaptureFixture[str], section: str, has_goals: bool
) -> None:
    measured = Results([each for each in read_published_results() if each.section == section])
    print_tables(Report("", {}, {}, {}, measured))
    printed = capsys.readouterr().out
    assert printed.startswith(f"\n{SECTION_TITLES[section]}\n\n| workload ")
    assert printed.count("| gateway ") >= 3
    assert ("\nGoals\n" in printed) is has_goals


def test_every_section_has_a_title() -> None:
    assert SECTION_TITLES.keys() == SECTIONS.keys()


def hide_goals(page: Path) -> str:
    """Return a page without measured goals: they are medians of ratios, not ratios of the published medians."""
    text = page.read_text(encoding="utf-8")
    return re.sub(r"(?<=## Goals\n\n)(\|.*\n)+", "", text)
