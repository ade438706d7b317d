"""One sum over all that decides a vector: vectors of equal fingerprints are comparable."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from export.checksums import sha256_files
from export.safetensors_files import SafetensorsFiles
from export.spec import ModelSpec, Precision


def fingerprint(weights: SafetensorsFiles, precision: Precision, spec: ModelSpec, tokenizer: bytes) -> str:
    """Return the sum over weights, precision, preprocessing, pooling and tokenizer."""
    parts: dict[str, Any] = {
        "weights": sorted(sha256_files(weights.paths).values()),
        "precision": precision,
        "spec": asdict(spec),
        "tokenizer": hashlib.sha256(tokenizer).hexdigest(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
