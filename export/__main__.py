"""The command line: `python -m export MODEL [--name PUBLIC_ID] [--repository DIR] ...`, or `--list [DIR]`."""

from __future__ import annotations

import argparse
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from export.errors import ExportError
from export.progress import Progress
from export.serving import describe_serving_options, parse_serving_spec
from export.spec import Target, Task

DEFAULT_REPOSITORY = Path("build/model_repository")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one export and return its exit status; a failed one writes a line `error: ...` to stderr."""
    parser = _parser()
    parsed = vars(parser.parse_args(arguments))
    listed = parsed.pop("listed")
    if listed is None and parsed["model"] is None:
        parser.error("MODEL is missing; --list names some")
    show_traceback, settings, target = parsed.pop("traceback"), parsed.pop("settings"), parsed.pop("target")
    progress = Progress()
    try:
        if listed is not None:
            from export.catalogue import describe_catalogue, describe_repository

            sys.stdout.write(f"{describe_repository(Path(listed)) if listed else describe_catalogue()}\n")
            return 0
        from export.pipeline import ExportRequest, export_model

        request = ExportRequest(**parsed, serving=parse_serving_spec(settings, target))
        public_id = export_model(request, progress)
    except ExportError as error:
        if show_traceback:
            traceback.print_exc()
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted; the repository is unchanged\n")
        return 130
    progress.say(f"{request.repository} serves {public_id}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export",
        description=sys.modules["export"].__doc__,
        epilog=f"options of --set, which can also be edited in config.pbtxt:\n{describe_serving_options()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="folder of a checkpoint, or hub id (organisation/name)"
    )
    parser.add_argument(
        "--list",
        dest="listed",
        nargs="?",
        const="",
        metavar="DIR",
        help="export nothing; list what can be exported, or what the model repository DIR holds",
    )
    parser.add_argument("--name", dest="public_id", metavar="PUBLIC_ID", help="name to serve it by (default: MODEL)")
    parser.add_argument(
        "--task", choices=get_args(Task), help="default: what config.json says; Qwen3 rerankers need `rank`"
    )
    parser.add_argument("--precision", choices=("fp32", "fp16", "int8"), default="fp32", help="default: fp32")
    parser.add_argument(
        "--target",
        choices=get_args(Target),
        default="cpu",
        help="what it will run on (default: cpu); TensorRT needs engines (docs/gpu.md), before version 11 dense ones",
    )
    parser.add_argument(
        "--repository",
        type=Path,
        default=DEFAULT_REPOSITORY,
        metavar="DIR",
        help=f"Triton model repository to publish into (default: {DEFAULT_REPOSITORY})",
    )
    parser.add_argument("--revision", metavar="REV", help="commit, tag or branch on the hub (default: pinned, or main)")
    parser.add_argument("--license", metavar="SPDX", help="licence, instead of the one in the checkpoint's README")
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="STEP.OPTION=VALUE",
        help="how Triton runs a step, repeatable: the options are listed below",
    )
    parser.add_argument("--replace", action="store_true", help="replace an exported model of that name")
    parser.add_argument("--traceback", action="store_true", help="show the traceback of an error")
    return parser


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up as for Ctrl-C
    sys.exit(main())
