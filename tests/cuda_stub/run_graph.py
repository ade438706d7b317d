"""Run a graph in the CUDA provider over the stub, and print what the run did as JSON.

LD_LIBRARY_PATH=LIBRARIES PYTHONPATH=PACKAGES python run_graph.py MODEL FEEDS.npz
"""

import ctypes
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime

COUNTERS = 4  # of cuda.c


def main(model: str, feeds: str) -> None:
    """Print the nodes of each provider by operator, and the counters of one run."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.enable_profiling = True
    options.profile_file_prefix = f"{model}.profile"
    session = onnxruntime.InferenceSession(model, options, providers=["CUDAExecutionProvider", "CPUExecutionProvider"])
    if session.get_providers()[0] != "CUDAExecutionProvider":
        sys.exit("the CUDA provider did not start")
    [library] = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libcudart" in line}
    take_counters, counters = ctypes.CDLL(library).stub_take_counters, (ctypes.c_long * COUNTERS)()
    take_counters(counters)
    session.run(None, dict(np.load(feeds)))
    take_counters(counters)
    nodes: dict[str, Counter[str]] = {"CPUExecutionProvider": Counter(), "CUDAExecutionProvider": Counter()}
    for event in json.loads(Path(session.end_profiling()).read_text()):
        if event.get("cat") == "Node" and "provider" in event.get("args", {}):
            nodes[event["args"]["provider"]][event["args"]["op_name"]] += 1
    print(json.dumps({"nodes": nodes, "counters": list(counters)}))  # noqa: T201


main(*sys.argv[1:])
