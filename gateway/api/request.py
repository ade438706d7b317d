"""The body of an embeddings request. One definition gives its shape, parses it, and describes it in OpenAPI.

`body.py` reads it from a request.
"""

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, get_args

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from gateway.api.provider_preferences import explain_provider
from gateway.errors import InvalidRequestError, quote
from gateway.types import Combine, EmbeddingType, EncodingFormat, InputType, Modality, Truncate

MAX_TOKEN_ID = 2**31 - 1
"""Above any vocabulary. Which ids a model has is for the engine to say."""

MAX_OUTPUTS = 16

MAX_INSTRUCTION_CHARS = 2000
"""With what surrounds it, an instruction must fit into the contract's `prompt`."""


class Body(Struct, forbid_unknown_fields=True):
    """Base of every dialect's body.

    Attributes:
        field_messages: What is wrong with a field, by its name, if it does not fit its type.
    """

    field_messages: ClassVar[Mapping[str, str]] = {}


class TextPart(Struct, forbid_unknown_fields=True, tag_field="type", tag="text"):
    """A text in a content block."""

    text: Annotated[str, Meta(description="The text.")]


class ImageSource(Struct, forbid_unknown_fields=True):
    """Where to find an image."""

    url: Annotated[
        str,
        Meta(description="A data URL with a PNG, JPEG, WebP or GIF, or an http(s) URL if the server fetches them."),
    ]
    detail: Annotated[Raw, Meta(description="Accepted and ignored.")] | UnsetType = UNSET


class ImagePart(Struct, forbid_unknown_fields=True, tag_field="type", tag="image_url"):
    """An image in a content block."""

    image_url: ImageSource


class FileSource(Struct, forbid_unknown_fields=True):
    """Where to find a PDF."""

    file_data: Annotated[str, Meta(description="A data URL with a PDF, or an http(s) URL if the server fetches them.")]
    filename: Annotated[Raw, Meta(description="Accepted and ignored.")] | UnsetType = UNSET


class FilePart(Struct, forbid_unknown_fields=True, tag_field="type", tag="file"):
    """A PDF in a content block."""

    file: FileSource


ContentPart = TextPart | ImagePart | FilePart


class ContentBlock(Struct, forbid_unknown_fields=True):
    """One item made of parts: texts, joined by newlines, with at most one image; or a PDF; or with `combine`, any."""

    content: Annotated[list[ContentPart], Meta(min_length=1)]


class OutputFormat(Struct, forbid_unknown_fields=True):
    """One way of writing every vector."""

    dimensions: Annotated[Annotated[int, Meta(ge=1)] | None, Meta(description="As `dimensions` of the request.")] = None
    embedding_type: Annotated[EmbeddingType | None, Meta(description="As `embedding_type` of the request.")] = None
    encoding_format: Annotated[EncodingFormat | None, Meta(description="That of the request if absent.")] = None


Text = Annotated[str, Meta(description="A text that is not blank, or an image as or within a data URL.")]
TokenId = Annotated[int, Meta(ge=0, le=MAX_TOKEN_ID)]
FloatTokenId = Annotated[float, Meta(ge=0, le=MAX_TOKEN_ID, multiple_of=1)]
"""A token id as OpenRouter's Python SDK sends it: `101.0`. `inputs.read_token_ids` turns it into an integer."""

TokenIds = Annotated[list[TokenId | FloatTokenId], Meta(description="Token ids of one item, at least one.")]

Input = Annotated[
    Text | list[Text | TokenId | FloatTokenId | TokenIds | ContentBlock],
    Meta(
        description="A text; an array of texts and content blocks, in any mixture; the token ids of one item; "
        "or an array of the token ids of several."
    ),
]


class EmbeddingsBody(Body, kw_only=True):
    """What to embed, and how to respond."""

    model: Annotated[
        str,
        Meta(
            min_length=1,
            description="Id of a served model; the suffixes `-query` and `-passage` set `input_type`; `:free` has no "
            "effect.",
        ),
    ]
    input: Input
    input_type: Annotated[
        Literal["query", "passage", "document", "search_query", "search_document"] | None,
        Meta(description="Whether texts are queries or documents; `passage` if absent. Images are passages."),
    ] = None
    prompt_name: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(
            description="An extension: name of one of the model's prompts, put before each text in place of "
            "`input_type`. The manifest has their texts; `query`, `passage` and `document` always exist."
        ),
    ] = None
    instruction: Annotated[
        Annotated[str, Meta(min_length=1, max_length=MAX_INSTRUCTION_CHARS)] | None,
        Meta(
            description="An extension: what the queries are for, in a sentence, for models trained to follow it, whose "
            "manifest has an `instruction_template`."
        ),
    ] = None
    modality: Annotated[
        Modality | Annotated[list[Modality], Meta(extra_json_schema={"minItems": 1})] | None,
        Meta(description="Of all items, or one for each; inferred if absent."),
    ] = None
    dimensions: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Size of the vectors, normalised again: from 128 (small models: 32) to the model's size."),
    ] = None
    embedding_type: Annotated[
        EmbeddingType | None,
        Meta(
            description="Type of the values, `float` if absent. `int8` is trunc(127·x), `uint8` that plus 128, "
            "`ubinary` packed signs, `binary` those minus 128."
        ),
    ] = None
    encoding_format: Annotated[
        EncodingFormat | None, Meta(description="Numbers (`float`), or base64 of the type's little-endian bytes.")
    ] = None
    outputs: Annotated[
        Annotated[list[OutputFormat], Meta(min_length=1, max_length=MAX_OUTPUTS)] | None,
        Meta(
            description="An extension: every vector in each of these formats, as an entry of its own with its position "
            "here as `output`. In place of `dimensions` and `embedding_type`."
        ),
    ] = None
    combine: Annotated[
        Combine | None,
        Meta(
            description="An extension for items of several parts, and for PDFs. `mean`: one vector per item, the "
            "normalised mean of those of its parts and pages. `none`: a vector per part, with its position as `part`. "
            "If absent, an item has one vector, and a PDF one per page, with its number as `page`."
        ),
    ] = None
    truncate: Annotated[
        Truncate | None,
        Meta(description="Which end of a text above the model's limit is cut; `NONE`, or absent, refuses the text."),
    ] = None
    on_error: Annotated[
        Literal["request", "item"] | None,
        Meta(
            description="An extension. `item`: an item that fails has a null embedding and an `error`, and the "
            "others are embedded. `request`, or absent: it fails the request."
        ),
    ] = None
    user: Annotated[str | None, Meta(description="Any string; only its hash is logged.")] = None


CHOICES: dict[str, tuple[str, ...]] = {
    "input_type": get_args(InputType),
    "modality": get_args(Modality),
    "encoding_format": get_args(EncodingFormat),
    "truncate": get_args(Truncate),
    "on_error": ("request", "item"),
    "combine": get_args(Combine),
}
"""Fields that have one of a few values, in the order in which messages list them."""

MESSAGES = {
    "model": "model must be a string",
    "input": "input must be a string, an array of strings or content blocks, an array of token ids, or an array of "
    "such arrays",
    "dimensions": "dimensions must be a positive integer",
    "embedding_type": "Input should be 'float', 'binary', 'ubinary', 'int8' or 'uint8'",  # the embedding NIM's message
    "outputs": f"outputs must be an array of 1 to {MAX_OUTPUTS} objects with any of dimensions, embedding_type and "
    "encoding_format",
    "prompt_name": "prompt_name must be a string that is not empty",
    "instruction": f"instruction must be a string of 1 to {MAX_INSTRUCTION_CHARS} characters",
    "user": "user must be a string",
}
"""What is wrong with a field, where it has no choices."""

ITEM = re.compile(r"\$\.inputs?\[(\d+)\](.*)")
ITEM_MESSAGES = (
    (r"\.content\[\d+\]\.image_url", 'has an image_url with fields other than "url" and "detail"', "unknown field"),
    (r"\.content\[\d+\]\.file", 'has a file with fields other than "file_data" and "filename"', "unknown field"),
    (
        r"\.content\[\d+\]",
        'has a content part that is neither {"type":"text"} nor {"type":"image_url"} nor {"type":"file"}',
        "",
    ),
    (r"\.content|$", 'must be a string or {"content": [...]} with at least one part', "Object|Expected `array`"),
    (r"\[\d+\]|$", "has a token id outside the vocabulary", "[<>]="),
    (r"\[\d+\]", "must hold token ids only, as integers", ""),
)
"""What is wrong with an item, by the rest of the path, and a pattern of the parser's own message."""

KINDS = {"str": "another string", "int": "a number", "float": "a number", "bool": "a boolean", "null": "null"}
KINDS |= {"array": "an array", "object": "an object"}
"""JSON types as messages name them."""


def explain(problem: str, kind: type[Body]) -> InvalidRequestError:
    """Return the error for a body of the wrong type, in the words that the embedding NIM publishes where it does.

    Args:
        problem: The message of msgspec, such as "Expected `str`, got `int` - at `$.input[0]`".
        kind: The body's type.
    """
    problem, _, path = problem.partition(" - at `")
    path = path.removesuffix("`")
    if not path.startswith("$."):
        return explain_body(problem)
    field, *rest = re.split(r"[.\[]", path.removeprefix("$."), maxsplit=1)
    missing = "got `null`" in problem or "length >= 1" in problem
    if missing and (field == "model" or (field in ("input", "inputs") and not rest)):
        return InvalidRequestError(f"{field} is required", param=field)
    if message := kind.field_messages.get(field):
        return InvalidRequestError(message, param=field)
    if field in ("input", "inputs") and (item := ITEM.fullmatch(path)):
        return explain_item(int(item[1]), item[2], problem)
    if field in CHOICES:
        listed = ", ".join(f"'{choice}'" for choice in CHOICES[field])
        message = f"{field} must be one of {listed}; got {describe_value(problem)}"
        return InvalidRequestError(message, param=field)
    if field == "provider":
        return explain_provider(path.removeprefix("$."), problem)
    return InvalidRequestError(MESSAGES.get(field, f"{field} is invalid"), param=field)


def explain_body(problem: str) -> InvalidRequestError:
    """Return the error for a problem of the body as a whole."""
    if unknown := re.search("unknown field `(.*)`", problem, re.DOTALL):
        name = quote(unknown[1])
        if not name.startswith("'"):
            return InvalidRequestError("the request body has an unknown field")
        return InvalidRequestError(f"unknown field {name}", param=unknown[1])
    if missing := re.search("missing required field `(.*)`", problem):
        return InvalidRequestError(f"{missing[1]} is required", param=missing[1])
    return InvalidRequestError("the request body must be a JSON object")


def explain_item(index: int, path: str, problem: str) -> InvalidRequestError:
    """Return the error for an item, or for the whole input if the item is of no published form."""
    is_flat_id = not path and re.search("[<>]=", problem)  # of a list of ids, which is one item
    index = 0 if is_flat_id else index
    for path_pattern, message, problem_pattern in ITEM_MESSAGES:
        if re.match(path_pattern, path) and re.search(problem_pattern, problem):
            return InvalidRequestError(f"input[{index}] {message}", param=f"input[{index}]")
    return InvalidRequestError(MESSAGES["input"], param="input")


def describe_value(problem: str) -> str:
    """Return how a message refers to a value that is none of a field's choices."""
    if value := re.search("""enum value (['"])(.*)\\1""", problem, re.DOTALL):
        return quote(value[2])
    kind = re.search("got `(.*)`", problem)
    return KINDS.get(kind[1] if kind else "", "another value")
