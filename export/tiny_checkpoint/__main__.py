"""The command line of the stand-in, with an argument for each width."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import export.tiny_checkpoint
from export.tiny_checkpoint.tensors import FULL_SIZE, Widths
from export.tiny_checkpoint.write import DTYPES, write_checkpoint


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a checkpoint and return the exit status: 0, or 1 after a line `error: ...` on stderr."""
    parsed = vars(_parser().parse_args(arguments))
    folder, options = parsed.pop("folder"), {name: parsed.pop(name) for name in ("seed", "dtype", "reranker")}
    base = FULL_SIZE if parsed.pop("full_size") else Widths()
    try:
        widths = replace(base, **{name: value for name, value in parsed.items() if value is not None})
        write_checkpoint(folder, widths, **options)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export.tiny_checkpoint",
        description=export.tiny_checkpoint.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", metavar="OUT", type=Path, help="folder to write the checkpoint to")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="float32", help="of the weights (default: float32)")
    parser.add_argument(
        "--reranker", action="store_true", help="write a reranker, as nvidia/llama-nemotron-rerank-vl-1b-v2"
    )
    parser.add_argument("--full-size", action="store_true", help="use the widths of the real model, 1.7B parameters")
    full_size = asdict(FULL_SIZE)
    for name, default in asdict(Widths()).items():
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=int, metavar="N", help=f"default: {default}; full size: {full_size[name]}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
