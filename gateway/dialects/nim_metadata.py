"""What the embedding NIM tells about itself: `/v1/metadata`, `/v1/manifest`, `/v1/license`, `/v1/version`.

All of it comes from the manifests that the exports left in the served repository.
"""

import hashlib
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from gateway.dialects import schema
from gateway.dialects.documentation import ALWAYS, ASKING_ENGINE, error_responses
from gateway.dialects.embeddings_response import json_response
from gateway.dialects.openai_nim import DIALECT
from gateway.dialects.route import DialectRoute, Handler
from gateway.engine import ServedModel
from gateway.release import API_VERSION, release_version
from gateway.services import Services


class NimMetadata:
    """The handlers of these routes."""

    def __init__(self, services: Services) -> None:
        """Keeps what the handlers work with.

        Args:
            services: of the application.
        """
        self._services = services

    def routes(self) -> list[BaseRoute]:
        """Every route of this module."""
        return [
            self._route("/v1/metadata", self.show_metadata),
            self._route("/v1/manifest", self.show_manifest),
            self._route("/v1/license", self.show_license),
            DialectRoute(
                "/v1/version",
                self.show_version,
                dialect=DIALECT,
                access=self._services.access,
                response_model=schema.Version,
                responses=error_responses(DIALECT, *ALWAYS),
            ),
        ]

    def _route(self, path: str, handler: Handler) -> BaseRoute:
        responses = error_responses(DIALECT, *ASKING_ENGINE)
        return DialectRoute(
            path,
            handler,
            dialect=DIALECT,
            access=self._services.access,
            response_model=dict[str, Any],
            responses=responses,
        )

    async def show_metadata(self, request: Request) -> Response:
        """Tell the versions, and of each model its source, limits, precision and fingerprint."""
        models = list((await self._services.catalogue.models()).values())
        content = {
            "version": release_version(),
            "api_version": API_VERSION,
            "modelInfo": [
                {"shortName": model.public_id, "modelUrl": str(model.manifest.get("source", ""))} for model in models
            ],
            "models": [describe_model(model) for model in models],
        }
        return json_response(content)

    async def show_manifest(self, request: Request) -> Response:
        """Show each model's manifest, with its files, their sizes and SHA-256 sums."""
        models = (await self._services.catalogue.models()).values()
        data = [{"public_id": model.public_id, **model.manifest} for model in models]
        return json_response({"object": "list", "data": data})

    async def show_license(self, request: Request) -> Response:
        """Show the licence of the first model, and those of all."""
        models = (await self._services.catalogue.models()).values()
        licenses = [describe_license(model) for model in models]
        return json_response((licenses[0] if licenses else {}) | {"licenses": licenses})

    async def show_version(self, request: Request) -> Response:
        """Tell the release and the version of the API."""
        return json_response({"release": release_version(), "api": API_VERSION})


def describe_model(model: ServedModel) -> dict[str, Any]:
    """What `/v1/metadata` says of a model."""
    manifest = model.manifest
    return {
        "id": model.public_id,
        "source": manifest.get("source"),
        "revision": manifest.get("revision"),
        "architecture": manifest.get("architecture"),
        "precision": model.precision,
        "dimensions": model.dimensions,
        "max_tokens": model.max_tokens,
        "modalities": ["text", "image", "text_image"] if model.takes_images else ["text"],
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


def describe_license(model: ServedModel) -> dict[str, Any]:
    """A model's licence, in the NIM's fields."""
    text = str(model.manifest.get("license_text", ""))
    return {
        "model": model.public_id,
        "name": model.license,
        "type": "text",
        "size": len(text.encode()),
        "sha": hashlib.sha256(text.encode()).hexdigest(),
        "content": text,
    }
