"""Items that clients send as token ids: checked, decoded or refused.

Ids of another model's tokenizer give a vector that looks right and is wrong. LangChain's OpenAI client sends OpenAI's
ids by default.
"""

from collections.abc import Callable
from dataclasses import dataclass

from gateway.engine import ServedModel
from gateway.errors import InvalidItemError
from gateway.settings import Settings
from gateway.types import RequestItem, TextItem, TokensItem

REMEDY = "send text instead (LangChain: check_embedding_ctx_length=False)"

UNCHECKED_MODES = frozenset({"any", "refuse", "checked"})
"""Settings that are not the name of an encoding."""


class TokenIdSettingsError(ValueError):
    """The tiktoken encoding named by the settings cannot be loaded."""


@dataclass(frozen=True, slots=True)
class TokenIdPolicy:
    """What happens to items given as token ids.

    Attributes:
        mode: `GATEWAY_TOKEN_IDS`.
        decode: Returns the text of ids; raises KeyError for an unknown one. None unless `mode` names an encoding.
    """

    mode: str = "checked"
    decode: Callable[[list[int]], str] | None = None

    @property
    def is_checked(self) -> bool:
        """Whether the engine checks that ids are the model's own."""
        return self.mode != "any"

    def apply(self, index: int, item: RequestItem, model: ServedModel) -> RequestItem:
        """Return the item, with token ids decoded if the mode asks for it.

        Raises:
            InvalidItemError: The ids are refused, or do not belong to the encoding.
        """
        if not isinstance(item, TokensItem):
            return item
        if self.decode is not None:
            try:
                text = self.decode(item.token_ids)
            except KeyError as error:
                raise InvalidItemError(index, f"has a token id outside the {self.mode} encoding") from error
            if not text or text.isspace():
                raise InvalidItemError(index, "must not be blank or empty")
            return TextItem(text)
        if self.mode == "refuse":
            raise InvalidItemError(index, f"is given as token ids, which this server does not accept; {REMEDY}")
        if self.mode == "checked" and not model.checks_token_ids:
            raise InvalidItemError(index, f"is given as token ids, which cannot be checked for this model; {REMEDY}")
        return item


def build_token_id_policy(settings: Settings) -> TokenIdPolicy:
    """Return the policy that the settings ask for.

    Raises:
        TokenIdSettingsError: The encoding cannot be loaded.
    """
    name = settings.token_ids
    if name in UNCHECKED_MODES:
        return TokenIdPolicy(name)
    try:
        import tiktoken
        from tiktoken.load import load_tiktoken_bpe
    except ImportError as error:
        raise TokenIdSettingsError(f"token_ids: {name} needs tiktoken; install tessera[tiktoken]") from error
    try:
        if settings.tiktoken_file is None:
            encoding = tiktoken.get_encoding(name)
        else:
            ranks = load_tiktoken_bpe(str(settings.tiktoken_file))
            encoding = tiktoken.Encoding(name, pat_str="", mergeable_ranks=ranks, special_tokens={})
    except Exception as error:  # requests' own, OSError, ValueError: tiktoken promises none
        raise TokenIdSettingsError(
            f"tiktoken_file: the {name} encoding cannot be loaded: set GATEWAY_TIKTOKEN_FILE to its .tiktoken file, or "
            "TIKTOKEN_CACHE_DIR to a folder where tiktoken has stored it"
        ) from error
    return TokenIdPolicy(name, encoding.decode)
