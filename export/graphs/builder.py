"""A recorder of ONNX nodes: `op.MatMul(x, w)` adds a node and returns its output."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

OPSET = 20
IR_VERSION = 9  # the newest that every Triton since 24.10 loads
CONTRIB = "com.microsoft"  # the domain of ONNX Runtime's own operators
TENSORRT = "trt"  # the domain of TensorRT's own operators

Attribute = int | float | str | Sequence[int] | ir.Graph | None
Operand = ir.Value | int | float | Sequence[int] | NDArray[np.generic] | None


class GraphBuilder:
    """One graph or subgraph being recorded.

    Operands that are numbers, lists or arrays become initializers: int64 from Python integers, float32 from Python
    floats. The names of nodes begin with their scope, so that profiles are readable.

    onnxscript's builder numbers nodes per graph, so that names in a subgraph repeat those outside, which ONNX forbids;
    it also infers shapes at each node, which takes fourteen times as long.

    Args:
        parent: Surrounding graph of a subgraph, whose names must not be repeated.
    """

    def __init__(self, parent: GraphBuilder | None = None) -> None:
        self._tape = ir.tape.Tape()
        self._inputs: list[ir.Value] = []
        self._is_subgraph = parent is not None
        self._counter: Iterator[int] = parent._counter if parent else itertools.count()
        self._scope: str = parent._scope if parent else ""
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self._recorded: dict[str, ir.Value] = {}

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Prefix the names of the nodes recorded inside."""
        outer = self._scope
        self._scope = f"{outer}/{name}" if outer else name
        try:
            yield
        finally:
            self._scope = outer

    def __getattr__(self, op_type: str) -> Callable[..., ir.Value]:
        """Return a function that records a node of that type: `op.Gather(table, ids, axis=0)`."""
        if not op_type[0].isupper():
            raise AttributeError(op_type)
        return lambda *operands, **attributes: self.record(op_type, operands, attributes)[0]

    def contrib(self, op_type: str, *operands: Operand, **attributes: Attribute) -> ir.Value:
        """Record a node of one of ONNX Runtime's own operators, and return its output."""
        return self.record(op_type, operands, attributes, domain=CONTRIB)[0]

    def record(
        self,
        op_type: str,
        operands: Sequence[Operand],
        attributes: Mapping[str, Attribute],
        outputs: int = 1,
        domain: str = "",
    ) -> Sequence[ir.Value]:
        """Record one node and return its outputs.

        Args:
            op_type: Operator.
            operands: Inputs of the node; None for an omitted optional one.
            attributes: Attributes of the node.
            outputs: Number of outputs.
            domain: Domain of the operator; that of ONNX is empty.
        """
        name = f"{self._scope}/{op_type}_{next(self._counter)}".lstrip("/")
        values = self._tape.op_multi_out(
            op_type,
            [self._value(operand) for operand in operands],
            attributes,
            num_outputs=outputs,
            name=name,
            domain=domain,
        )
        for index, value in enumerate(values):
            value.name = f"{name}:{index}"
        return values

    def once(self, name: str, record: Callable[[], ir.Value]) -> ir.Value:
        """Return what was recorded under a name in this graph, or record it."""
        if name not in self._recorded:
            self._recorded[name] = record()
        return self._recorded[name]

    def split(self, x: ir.Value, sizes: Sequence[int]) -> Sequence[ir.Value]:
        """Split the last axis into parts of the given sizes."""
        return self.record("Split", [x, list(sizes)], {"axis": -1}, outputs=len(sizes))

    def input(self, name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> ir.Value:
        """Declare the next input of the graph."""
        return self._declare(ir.val(name, dtype, shape))

    def sequence_input(self, name: str, dtype: ir.DataType) -> ir.Value:
        """Declare the next input of the graph, a sequence of tensors."""
        return self._declare(ir.val(name, type=ir.SequenceType(ir.TensorType(dtype))))

    def weight(
        self, name: str, read: Callable[[], NDArray[np.generic]], shape: Sequence[int], dtype: ir.DataType
    ) -> ir.Value:
        """Add an initializer whose data is read when the model is saved.

        Args:
            name: Name of the initializer.
            read: Function that returns the data; called at each access, and the data is not kept.
            shape: Shape of the data.
            dtype: Type to convert the data to.
        """

        def load() -> ir.TensorProtocol:
            return ir.tensor(np.ascontiguousarray(read(), dtype=dtype.numpy()), name=name)

        return self._tape.initializer(ir.LazyTensor(load, dtype=dtype, shape=ir.Shape(shape), name=name))

    def subgraph(self) -> GraphBuilder:
        """Start the body of a control-flow node, which may use the values of this graph."""
        return GraphBuilder(parent=self)

    def branch(
        self,
        condition: ir.Value,
        then: Callable[[GraphBuilder], ir.Value],
        otherwise: Callable[[GraphBuilder], ir.Value],
    ) -> ir.Value:
        """Record an `If` node; both of its branches may use the values of this graph."""
        branches = {}
        for name, compute in (("then_branch", then), ("else_branch", otherwise)):
            op = self.subgraph()
            branches[name] = op.build(name, [compute(op)])
        return self.record("If", [condition], branches)[0]

    def build(self, name: str, outputs: Sequence[ir.Value]) -> ir.Graph:
        """Return the finished graph."""
        domains = {node.domain for node in self._tape.nodes if node.domain}
        return ir.Graph(
            self._inputs,
            outputs,
            nodes=self._tape.nodes,
            initializers=self._tape.initializers,
            opset_imports={"": OPSET} | dict.fromkeys(sorted(domains), 1),
            name=name,
        )

    def replace(self, graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
        """Put what was recorded here in the place of a node of another graph, with `value` as its output."""
        ir.convenience.replace_nodes_and_values(graph, node, [node], self._tape.nodes, node.outputs, [value])
        for initializer in self._tape.initializers:
            graph.register_initializer(initializer)

    def _declare(self, value: ir.Value) -> ir.Value:
        if self._is_subgraph:
            value.name = f"{self._scope}/{value.name}_{next(self._counter)}"
        self._inputs.append(value)
        return value

    def _value(self, operand: Operand) -> ir.Value | None:
        if operand is None or isinstance(operand, ir.Value):
            return operand
        array = np.asarray(operand)
        if not isinstance(operand, np.ndarray) and array.dtype == np.float64:
            array = array.astype(np.float32)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            tensor = ir.tensor(array, name=f"{self._scope}/constant_{next(self._counter)}".lstrip("/"))
            self._constants[key] = self._tape.initializer(tensor)
        return self._constants[key]


def build_model(op: GraphBuilder, name: str, output_name: str, output: ir.Value, *dims: int) -> ir.Model:
    """Return the model of a finished graph with one output: float32 rows of a fixed width, or numbers.

    Args:
        op: The recorded graph.
        name: Name of the graph.
        output_name: Public name of the output.
        output: The output `(rows, *dims)`.
        dims: Width of the output; none for a number in each row.
    """
    output.name = output_name
    output.type = ir.TensorType(ir.DataType.FLOAT)
    output.shape = ir.Shape([f"{output_name}_rows", *dims])
    return ir.Model(op.build(name, [output]), ir_version=IR_VERSION)


def save_model(model: ir.Model, folder: Path) -> Path:
    """Write a model and its weights, and return the path of `model.onnx`.

    Weights are read one at a time while they are written, to a file of their own: protobuf files end at 2 GiB.
    """
    path = folder / "model.onnx"
    ir.save(model, path, external_data="model.onnx.data")
    return path
