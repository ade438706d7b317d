"""The embedding NIM's routes about itself: `/v1/metadata`, `/v1/manifest`, `/v1/license`, `/v1/version`.

All of it comes from the manifests that exports leave in the served repository.
"""

import hashlib
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from gateway.api.context import Services
from gateway.api.embeddings import json_response
from gateway.api.middleware import DialectRoute
from gateway.api.openai_nim import DIALECT
from gateway.api.openapi import ALWAYS, CALLING_ENGINE, error_responses, json_responses, query_parameters
from gateway.engine import ServedModel
from gateway.errors import InvalidRequestError, NotFoundError
from gateway.version import API_VERSION, package_version


@dataclass(frozen=True, slots=True)
class Version:
    """Versions of the server."""

    release: str
    api: str


class NimMetadata:
    """Handlers of these routes."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[BaseRoute]:
        """Return every route of this module."""
        route = partial(DialectRoute, dialect=DIALECT, access=self._services.access)
        errors = error_responses(DIALECT, *CALLING_ENGINE)
        return [
            route(
                "/v1/metadata",
                self.show_metadata,
                responses=error_responses(DIALECT, InvalidRequestError, NotFoundError, *CALLING_ENGINE),
                openapi_extra=query_parameters({"type": "string"}, model="Public id: show this model only."),
            ),
            route("/v1/manifest", self.show_manifest, responses=errors),
            route("/v1/license", self.show_license, responses=errors),
            route(
                "/v1/version",
                self.show_version,
                responses=json_responses(DIALECT, Version, *ALWAYS),
            ),
        ]

    async def show_metadata(self, request: Request) -> Response:
        """Return versions, and the source, limits, precision and fingerprint of each model, or of one."""
        catalogue = self._services.catalogue
        name = read_query_parameter(request, "model")
        models = [(await catalogue.resolve(name)).model] if name else list((await catalogue.models()).values())
        content = {
            "version": package_version(),
            "api_version": API_VERSION,
            "modelInfo": [
                {"shortName": model.public_id, "modelUrl": str(model.manifest.get("source", ""))} for model in models
            ],
            "models": [describe_model(model) for model in models],
        }
        return json_response(content)

    async def show_manifest(self, request: Request) -> Response:
        """Return each model's manifest, with its files, their sizes and SHA-256 sums."""
        models = (await self._services.catalogue.models()).values()
        data = [{"public_id": model.public_id, **model.manifest} for model in models]
        return json_response({"object": "list", "data": data})

    async def show_license(self, request: Request) -> Response:
        """Return the licence of the first model, and those of all."""
        models = (await self._services.catalogue.models()).values()
        licenses = [describe_license(model) for model in models]
        return json_response((licenses[0] if licenses else {}) | {"licenses": licenses})

    async def show_version(self, request: Request) -> Response:
        """Return the versions of the server and of the API."""
        return json_response(Version(package_version(), API_VERSION))


def read_query_parameter(request: Request, name: str) -> str | None:
    """Return a query parameter, or None if it is absent.

    Raises:
        InvalidRequestError: It is given more than once.
    """
    values = request.query_params.getlist(name)
    if len(values) > 1:
        raise InvalidRequestError(f"{name} must be given once", param=name)
    return values[0] if values else None


def describe_model(model: ServedModel) -> dict[str, Any]:
    """Return the entry of a model in `/v1/metadata`."""
    manifest = model.manifest
    return {
        "id": model.public_id,
        "source": manifest.get("source"),
        "revision": manifest.get("revision"),
        "architecture": manifest.get("architecture"),
        "precision": model.precision,
        "task": model.task,
        "dimensions": model.dimensions if model.task == "embed" else None,
        "max_tokens": model.max_tokens,
        "modalities": list_modalities(model),
        "max_tiles": model.max_tiles,
        "tokens_per_tile": model.tokens_per_tile,
        "pooling": manifest.get("pooling"),
        "preprocessing": manifest.get("preprocessing", {}),
        "validation": manifest.get("validation", {}),
        "license": model.license,
        "fingerprint": model.fingerprint,
        "created": model.created_s,
        "bytes": sum(file["bytes"] for file in manifest.get("files", [])),
    }


def list_modalities(model: ServedModel) -> list[str]:
    """Return the kinds of items that a model takes."""
    if not model.takes_images:
        return ["text"]
    return ["text", "image", "text_image"] if model.takes_text_with_images else ["text", "image"]


def describe_license(model: ServedModel) -> dict[str, Any]:
    """Return a model's licence, in the NIM's fields."""
    text = str(model.manifest.get("license_text", ""))
    return {
        "model": model.public_id,
        "name": model.license,
        "type": "text",
        "size": len(text.encode()),
        "sha": hashlib.sha256(text.encode()).hexdigest(),
        "content": text,
    }
