"""Models as OpenRouter describes them, with every field that its own SDKs require."""

from typing import Any
from urllib.parse import quote as percent_encode

from gateway.engine import ServedModel

PRICING = {"prompt": "0", "completion": "0", "request": "0", "image": "0"}
NO_TOOL_CHOICE = {"auto": False, "function": False, "none": False, "required": False}


def describe_model(model: ServedModel) -> dict[str, Any]:
    """Return a model's entry in the list of models."""
    return {
        "id": model.public_id,
        "canonical_slug": model.public_id,
        "hugging_face_id": str(model.manifest.get("source", "")) or None,
        "name": display_name(model),
        "description": str(model.manifest.get("description", "")),
        "created": model.created_s,
        "context_length": model.max_tokens,
        "architecture": describe_architecture(model),
        "pricing": PRICING,
        "top_provider": {
            "context_length": model.max_tokens,
            "max_completion_tokens": None,
            "is_moderated": False,
        },
        "per_request_limits": None,
        "supported_parameters": [],
        "default_parameters": None,
        "supported_voices": None,
        "links": {"details": f"/v1/metadata?model={percent_encode(model.public_id)}"},
    }


def describe_endpoints(model: ServedModel, provider_name: str) -> dict[str, Any]:
    """Return a model with its endpoints, of which this server is the only one."""
    endpoint = {
        "name": f"{provider_name} | {model.public_id}",
        "model_id": model.public_id,
        "model_name": display_name(model),
        "provider_name": provider_name,
        "tag": provider_name.lower(),
        "context_length": model.max_tokens,
        "max_prompt_tokens": model.max_tokens,
        "max_completion_tokens": None,
        "quantization": model.precision,
        "pricing": PRICING,
        "supported_parameters": [],
        "status": 0,
        "uptime_last_5m": None,
        "uptime_last_30m": None,
        "uptime_last_1d": None,
        "latency_last_30m": None,
        "throughput_last_30m": None,
        "service_tier": None,
        "native_tools": {},
        "supports_tool_choice": NO_TOOL_CHOICE,
        "supports_implicit_caching": False,
        "supports_diarization": False,
    }
    return {
        "id": model.public_id,
        "name": display_name(model),
        "description": str(model.manifest.get("description", "")),
        "created": model.created_s,
        "architecture": describe_architecture(model),
        "endpoints": [endpoint],
    }


def describe_architecture(model: ServedModel) -> dict[str, Any]:
    """Return what a model takes and returns."""
    modalities = ["text", "image"] if model.takes_images else ["text"]
    output = "rerank" if model.task == "rank" else "embeddings"
    return {
        "modality": "+".join(modalities) + f"->{output}",
        "input_modalities": modalities,
        "output_modalities": [output],
        "tokenizer": "Other",
        "instruct_type": None,
    }


def display_name(model: ServedModel) -> str:
    """Return the last component of the public id."""
    return model.public_id.rsplit("/", 1)[-1]
