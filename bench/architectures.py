"""Causal and local attention over packed rows against padding, on this machine: `python -m bench.architectures`.

Random weights at the widths of Qwen3-Embedding-0.6B and ModernBERT-base, with four of their layers. Three contenders
embed the same batches in turns: the exported graph, the same graph with all texts of a batch as long as the longest,
and transformers' own modules, padded and masked. Then the graph embeds texts of 2,048 and 8,192 tokens, each in a
process of its own, whose peak memory is reported.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModel, ModernBertConfig, PretrainedConfig, Qwen3Config

from bench.engine import PackedLayout, PaddedLayout, load_graph
from export.architectures import plan_export
from export.checkpoint import Checkpoint
from export.graphs.builder import save_model
from export.names import EMBEDDER

log = logging.getLogger("bench.architectures")

LAYERS = 4
VOCABULARY = 1000
BATCHES: Mapping[str, tuple[int, int, int]] = {
    "32 of 8 to 64": (32, 8, 64),
    "8 of 8 to 512": (8, 8, 512),
    "8 of 256": (8, 256, 256),
    "2 of 64 and 2,048": (2, 64, 2048),
}
"""Number of texts, and tokens of the shortest and the longest; those between are drawn."""
LONG_TEXTS = (2048, 8192)
TOKEN_IDS = (5, VOCABULARY)  # above those of special tokens

CONFIGS: Mapping[str, Callable[[], PretrainedConfig]] = {
    "Qwen3-Embedding-0.6B": lambda: Qwen3Config(  # type: ignore[no-untyped-call]
        vocab_size=VOCABULARY, hidden_size=1024, intermediate_size=3072, num_hidden_layers=LAYERS,
        num_attention_heads=16, num_key_value_heads=8, head_dim=128, max_position_embeddings=32768,
    ),
    "ModernBERT-base": lambda: ModernBertConfig(
        vocab_size=VOCABULARY, num_hidden_layers=LAYERS, pad_token_id=0, cls_token_id=2, sep_token_id=3, bos_token_id=2,
        eos_token_id=3, reference_compile=False, attn_implementation="sdpa",
    ),
}  # fmt: skip


def main() -> int:
    """Measure each model, and print times, their ratios and peak memory as JSON."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    parser = argparse.ArgumentParser(prog="python -m bench.architectures", description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=15, help="runs of each contender and batch (default: %(default)s)"
    )
    parser.add_argument("--model", choices=CONFIGS, action="append", help="default: all")
    parser.add_argument("--peak", nargs=2, metavar=("GRAPH", "TOKENS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        figures: dict[str, Any] = measure_peak(Path(options.peak[0]), int(options.peak[1]))
    else:
        figures = {name: measure(CONFIGS[name](), options.rounds) for name in options.model or CONFIGS}
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")
    return 0


def measure(config: PretrainedConfig, rounds: int) -> dict[str, Any]:
    """Return milliseconds and ratios by batch, and peak memory by length of a text."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = write_checkpoint(Path(folder), config)
        graph = save_model(plan_export(Checkpoint(checkpoint), "fp32").graphs[EMBEDDER](), checkpoint)
        session = load_graph(graph, "sleeping")
        module = AutoModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
        module.config.reference_compile = False  # ModernBERT would compile itself for minutes
        figures: dict[str, Any] = {}
        for name, batch in BATCHES.items():
            sequences = draw_sequences(*batch)
            longest = max(map(len, sequences))
            padded = {key: torch.from_numpy(x) for key, x in PaddedLayout().make_feeds(sequences).items()}
            del padded["token_type_ids"]
            packed = PackedLayout().make_feeds(sequences)
            as_long = PackedLayout().make_feeds(draw_sequences(len(sequences), longest, longest))
            figures[name] = compare(
                {
                    "packed": partial(session.run, None, packed),
                    "all as long as the longest": partial(session.run, None, as_long),
                    "PyTorch, padded": partial(run_module, module, padded),
                },
                rounds,
            )
            log.info("%s: %s", name, figures[name])
            figures[name]["tokens"] = [sum(map(len, sequences)), len(sequences) * longest]
        for tokens in LONG_TEXTS:
            command = [sys.executable, "-m", "bench.architectures", "--peak", str(graph), str(tokens)]
            figures[f"{tokens} tokens"] = json.loads(subprocess.check_output(command, text=True))
    return figures


def write_checkpoint(folder: Path, config: PretrainedConfig) -> Path:
    """Write random weights as sentence-transformers would, with a tokenizer that nothing here needs."""
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)  # type: ignore[no-untyped-call]
    vocabulary = {"[UNK]": 0} | {f"w{number}": number for number in range(1, VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106 - a token of a vocabulary
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    pooling = {"word_embedding_dimension": config.hidden_size, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    kinds = {"": "Transformer", "1_Pooling": "Pooling"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


def draw_sequences(count: int, shortest: int, longest: int) -> list[list[int]]:
    """Return token ids of `count` texts, the first two of which are the shortest and the longest."""
    random = np.random.default_rng(count)
    lengths = [shortest, longest, *random.integers(shortest, longest, max(count - 2, 0), endpoint=True)][:count]
    return [random.integers(*TOKEN_IDS, length).tolist() for length in lengths]


def run_module(module: torch.nn.Module, feeds: Mapping[str, torch.Tensor]) -> None:
    """Embed a padded batch, without the pooling."""
    with torch.inference_mode():
        module(**feeds)


def compare(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Any]:
    """Return the median milliseconds of each contender, and the median ratio of each to the first in the same round."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for run in contenders.values():
        run()
    for _ in range(rounds):
        for name, run in contenders.items():
            started = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - started))
    first, *others = (np.array(each) for each in times.values())
    ratios = [round(float(np.median(each / first)), 2) for each in others]
    return {name: round(float(np.median(each)), 1) for name, each in times.items()} | {"ratios to the first": ratios}


def measure_peak(graph: Path, tokens: int) -> dict[str, float]:
    """Return seconds and MiB that embedding one text adds to this process."""
    session = load_graph(graph, "sleeping")
    session.run(None, PackedLayout().make_feeds(draw_sequences(1, 8, 8)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    session.run(None, PackedLayout().make_feeds(draw_sequences(1, tokens, tokens)))
    added = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"seconds": round(time.perf_counter() - started, 4), "MiB": round(added / 1024)}


if __name__ == "__main__":
    raise SystemExit(main())
