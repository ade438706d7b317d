"""ONNX graphs over packed rows, written op by op: one row is one token of any sequence of the batch."""
