"""What can be wrong with one item, said so that the client may read it."""


class ItemError(Exception):
    """One item cannot be embedded; its neighbours can.

    Attributes:
        code: One of the codes listed in docs/contract.md.
        message: One sentence that names no path and repeats no input.
    """

    def __init__(self, code: str, message: str) -> None:
        """Print as `code: message`, the form of the `errors` tensor."""
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
