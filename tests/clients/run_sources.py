"""Run in a client's environment: execute pieces of code, and print what each assigned to `vectors` and `query` as JSON.

Standard input is a JSON list of sources; an exception is printed in place of a result, and does not affect the others.
"""

import json
import sys
from typing import Any


def execute(source: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    try:
        exec(compile(source, "docs/clients.md", "exec"), names)
    except Exception as error:
        return {"error": type(error).__name__, "message": str(error)}
    vectors = [[float(number) for number in vector] for vector in names["vectors"]]
    return {"vectors": vectors, "query": [float(number) for number in names["query"]]}


if __name__ == "__main__":
    results = [execute(source) for source in json.load(sys.stdin)]
    sys.stdout.write("\n" + json.dumps(results) + "\n")
