"""ONNX graphs over packed rows, written operator by operator: a row is one token of any sequence of the batch."""
