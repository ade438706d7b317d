"""What can be wrong with one item, said so that the client may read it."""


class ItemError(Exception):
    """One item cannot be embedded; its neighbours can.

    Attributes:
        code: One of the codes listed in docs/contract.md.
    """

    def __init__(self, code: str, message: str) -> None:
        """Keep the code beside a message that names no path and repeats no input."""
        super().__init__(message)
        self.code = code

    def __str__(self) -> str:
        """Return `code: message`, the form of the `errors` tensor."""
        return f"{self.code}: {self.args[0]}"
