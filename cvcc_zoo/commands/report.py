"""`cvcc-zoo report RUN...`: write runs side by side as one page, which opens in any browser without a network."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from cvcc_zoo.cli.parsing import ZooParser, command_parser
from cvcc_zoo.files.own import csv_text, expanded, file_to_write, shown, write_whole
from cvcc_zoo.printing import say
from cvcc_zoo.report import read_run, unfinished
from cvcc_zoo.report.comparison import pairs
from cvcc_zoo.report.figures import plotly
from cvcc_zoo.report.page import page
from cvcc_zoo.report.reports import PUBLIC
from cvcc_zoo.zoo.names import told_apart


def parser() -> ZooParser:
    """Return the parser of the command."""
    parser = command_parser("report", "RUN... [options]")
    parser.add_argument("runs", type=str, nargs="+", help="Run folders, such as runs/*.")
    parser.add_argument("--output", type=str, default="report.html", help="The HTML file to write.")
    parser.add_argument("--csv", type=str, default="", help="A .csv file for the differences of recipes and runs.")
    parser.add_argument("--title", type=str, default="Runs", help="Its heading.")
    parser.add_argument(
        "--images",
        type=Literal["public", "all", "none"],
        default=PUBLIC,
        help="Test images to show as mistakes: public (of data sets that anybody can download), all, or none.",
    )
    return parser


def main(args: Sequence[str]) -> int:
    """Run the command."""
    config = parser().parse_args(list(args))
    output = file_to_write(config.output, ".html")
    listed = file_to_write(config.csv, ".csv") if config.csv else None
    plotly("offline")  # raises now, rather than after all the work, if it is not installed
    folders = [expanded(run) for run in config.runs]
    apart = told_apart([folder.resolve().name for folder in folders], config.runs)
    names = dict(zip(folders, map(shown, apart), strict=True))
    waiting = [folder for folder in folders if unfinished(folder)]
    finished = [folder for folder in folders if folder not in waiting]
    if not finished:
        raise ValueError("none of these runs has ended; a report needs the summary.json of at least one")
    remarks = [f"Not finished, and left out: {', '.join(names[folder] for folder in waiting)}."] if waiting else []
    reports = [replace(read_run(folder, config.images), name=names[folder]) for folder in finished]
    write_whole(output, page(reports, config.title, remarks).encode())
    if listed is not None:
        write_whole(listed, csv_text(pairs(reports)).encode())
        say(f"written to {listed}")
    for remark in remarks:
        say(remark)
    for each in reports:
        if each.reason and each.summary["test_accuracy"] is not None:
            say(f"{each.name}: no results on its test images: {each.reason}")
        if each.remark:
            say(f"{each.name}: {each.remark}")
    say(f"written to {output} ({output.stat().st_size / 1e6:.1f} MB)")
    return 0
