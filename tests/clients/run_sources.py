"""Execute pieces of code in a client's environment, and print what each assigned to some names, such as `vectors`.

Standard input is a JSON list of sources, the last line of the output a JSON list of results. An exception takes the
place of its source's result.
"""

import json
import sys
from typing import Any

ASSIGNED = ("vectors", "query", "models", "ranking")


def execute(source: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    try:
        exec(compile(source, "docs/clients.md", "exec"), names)
    except Exception as error:
        return {"error": type(error).__name__, "message": str(error)}
    return {name: to_json(names[name]) for name in ASSIGNED if name in names}


def to_json(value: Any) -> Any:
    """Convert lists and arrays of numbers, of any library, to lists of floats."""
    if isinstance(value, str):
        return value
    return [to_json(entry) for entry in value] if hasattr(value, "__len__") else float(value)


if __name__ == "__main__":
    results = [execute(source) for source in json.load(sys.stdin)]
    sys.stdout.write("\n" + json.dumps(results) + "\n")
