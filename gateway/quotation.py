"""How much of a request's own words an error may repeat: short plain identifiers, and nothing else."""

import re

PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./:@+-]{0,79}")


def quote(value: object) -> str:
    """The value in single quotes if it is a short identifier, else what kind of thing it is.

    Args:
        value: of a JSON document.
    """
    match value:
        case str() if PLAIN.fullmatch(value):
            return f"'{value}'"
        case str():
            return "another string"
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case list():
            return "an array"
        case _:
            return "an object"
