"""Text encoders without a graph of ours: exported by optimum, padded, and put into the ragged contract.

Any encoder works that optimum can export as `feature-extraction` and that takes token ids, a mask and token types, if
its graph agrees with transformers. Sequences of a batch are padded to the longest of them.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir as ir

from export.architectures import Plan
from export.architectures.sentence_transformers import SentenceEmbedding, read_sentence_embedding
from export.architectures.text import TextEncoder, plan_text_embedder
from export.checkpoint import Checkpoint
from export.errors import CheckpointError, UnservablePrecisionError
from export.graphs.padded import INPUTS, wrap_padded_encoder
from export.graphs.text_embedder import SentenceHead
from export.spec import Precision, Target

if TYPE_CHECKING:
    from transformers import PretrainedConfig

TASK = "feature-extraction"
OPSET = 18
MAX_PARAMETERS = 500_000_000
"""Graph and weights pass through one protobuf message, which ends at 2 GiB."""

# Their position tables begin with rows for padding, as RoBERTa's.
_POSITIONS_AFTER_PADDING = frozenset({"data2vec-text", "ibert", "mpnet"})


def plan(checkpoint: Checkpoint, precision: Precision, target: Target) -> Plan:
    """Return the plan of a text encoder: one graph, the embedder.

    Raises:
        CheckpointError: A file is missing, or the model is too large.
        UnservablePrecisionError: The precision is not fp32, or the target is not a CPU.
    """
    from transformers import AutoConfig  # takes seconds to import

    model_type = checkpoint.config["model_type"]
    if target != "cpu":
        raise UnservablePrecisionError(f"{model_type} is exported by optimum, for CPUs only: choose --target cpu")
    if precision != "fp32":
        raise UnservablePrecisionError(f"{model_type} is exported by optimum, in fp32 only: choose --precision fp32")
    parameters = checkpoint.weights.parameter_count
    if parameters > MAX_PARAMETERS:
        raise CheckpointError(f"the checkpoint has {parameters} parameters; optimum's way takes {MAX_PARAMETERS}")
    folder = checkpoint.folder / checkpoint.transformer
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    sentence = read_sentence_embedding(checkpoint)

    def build(head: SentenceHead, precision: Precision, target: Target) -> ir.Model:
        encoder = _export(folder)
        return wrap_padded_encoder(encoder, checkpoint.weights, head, config.hidden_size, config.pad_token_id or 0)

    encoder = TextEncoder(build, config.hidden_size, config.vocab_size, _max_tokens(checkpoint, config, sentence))
    return plan_text_embedder(checkpoint, precision, target, encoder, sentence, layout="padded")


def _max_tokens(checkpoint: Checkpoint, config: PretrainedConfig, sentence: SentenceEmbedding) -> int:
    """Return the longest sequence that the encoder takes."""
    limits = [getattr(config, "max_position_embeddings", None)]
    if limits[0] is not None and config.model_type in _POSITIONS_AFTER_PADDING:
        limits = [limits[0] - config.pad_token_id - 1]
    tokenizer = checkpoint.json(checkpoint.transformer_file("tokenizer_config.json")) or {}
    limits += [tokenizer.get("model_max_length"), sentence.max_tokens]
    known = [int(limit) for limit in limits if isinstance(limit, int | float) and 0 < limit < 1 << 20]
    if not known:
        raise CheckpointError(
            f"neither config.json nor tokenizer_config.json of {checkpoint.folder} says how long a sequence may be"
        )
    return min(known)


def _export(folder: Path) -> Any:
    """Return the encoder as optimum exports it, with its weights in memory.

    Raises:
        CheckpointError: It wants other inputs than texts give.
    """
    from optimum.exporters.onnx import main_export
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # it warns of what optimum asks it for
    with tempfile.TemporaryDirectory() as work, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch's tracer, and of optimum about its dependencies
        main_export(
            str(folder),
            output=work,
            task=TASK,
            library_name="transformers",
            framework="pt",
            opset=OPSET,
            do_validation=False,  # the whole graph is compared with transformers later
            no_post_process=True,
            local_files_only=True,
            trust_remote_code=False,
        )
        encoder = onnx.load(Path(work, "model.onnx"))
    inputs = [value.name for value in encoder.graph.input]
    if not set(inputs) <= set(INPUTS):
        raise CheckpointError(f"the encoder takes {', '.join(inputs)}; only {', '.join(INPUTS)} are supported")
    return encoder
