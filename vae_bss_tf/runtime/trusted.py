"""The operations that a SavedModel may hold: those that our own exports use, none of which reads or writes a file."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vae_bss_tf.errors import CheckpointError
from vae_bss_tf.runtime.base import import_library, refusing_damage

# They compute from their inputs alone, or read and assign the model's own variables.
OPERATIONS = frozenset({
    "Abs", "AddV2", "All", "Any", "AssignVariableOp", "BatchMatMulV2", "BiasAdd", "BroadcastTo", "Cast", "ConcatV2",
    "Const", "Conv2D", "Conv2DBackpropInput", "DepthToSpace", "DepthwiseConv2dNative", "DisableCopyOnRead",
    "Einsum", "Elu", "Equal", "Exp", "ExpandDims", "Fill", "FusedBatchNormV3", "GatherV2", "Greater",
    "GreaterEqual", "Identity", "IdentityN", "LeakyRelu", "Less", "LessEqual", "Log", "Log1p", "LogicalAnd",
    "LogicalNot", "LogicalOr", "MatMul", "Max", "Maximum", "Mean", "Min", "Minimum", "Mul", "Neg", "NoOp",
    "OnesLike", "Pack", "Pad", "PadV2", "PartitionedCall", "Placeholder", "Pow", "Prod", "Range", "ReadVariableOp",
    "RealDiv", "Relu", "Reshape", "ReverseV2", "Rsqrt", "Select", "SelectV2", "Shape", "ShardedFilename", "Sigmoid",
    "Slice", "Softmax", "Softplus", "SpaceToDepth", "Split", "SplitV", "Sqrt", "Square", "SquaredDifference",
    "Squeeze", "StatefulPartitionedCall", "StaticRegexFullMatch", "StopGradient", "StridedSlice", "StringJoin",
    "Sub", "Sum", "Tanh", "Tile", "Transpose", "Unpack", "VarHandleOp", "ZerosLike",
})  # fmt: skip
# TensorFlow puts them into two functions of every SavedModel, to save and restore its variables.
SAVER_OPERATIONS = frozenset({"MergeV2Checkpoints", "RestoreV2", "SaveV2"})


def check_operations(path: Path) -> None:
    """Refuses a SavedModel whose graph holds an operation that no export of ours has.

    TensorFlow runs parts of a graph when it loads a SavedModel, and some operations read or write files or start
    Python functions. The operations that restore and save variables are allowed where TensorFlow puts them, in two
    functions that only the saver calls. Nothing of the graph is run here.

    Args:
        path: Folder with a `saved_model.pb`.

    Raises:
        CheckpointError: An operation is not on the list, or the file cannot be read.
        ConfigError: TensorFlow is not installed.

    Example:
        >>> check_operations(Path("exported/mnist/saved_model/1"))
    """
    library = import_library("tensorflow.core.protobuf.saved_model_pb2", "train")
    with refusing_damage(path):
        content = library.SavedModel.FromString((path / "saved_model.pb").read_bytes())
        # Without an object graph, TensorFlow falls back to version 1's way, which runs whatever the file names.
        if len(content.meta_graphs) != 1 or not content.meta_graphs[0].HasField("object_graph_def"):
            raise ValueError("it holds no single graph of TensorFlow 2")
        foreign = sorted(_foreign_operations(content.meta_graphs[0]))
    if foreign:
        raise CheckpointError(
            f"the graph of {path} holds {', '.join(foreign)}, which no export of ours has and which may reach files or "
            "run code; load it with trust=True only if you know where it comes from."
        )


def _foreign_operations(graph: Any) -> set[str]:
    nodes = graph.graph_def.node
    functions = {function.signature.name: function.node_def for function in graph.graph_def.library.function}
    savers = {name for name, body in functions.items() if any(node.op in SAVER_OPERATIONS for node in body)}
    found = {node.op for node in nodes} | {node.op for name in functions.keys() - savers for node in functions[name]}
    found |= {node.op for name in savers for node in functions[name]} - SAVER_OPERATIONS
    # Who names a function of the saver, other than the saver itself, could have it write or read any file.
    entries = {
        tensor.partition(":")[0] for tensor in (graph.saver_def.save_tensor_name, graph.saver_def.restore_op_name)
    }
    callers = [node for body in functions.values() for node in body] + [n for n in nodes if n.name not in entries]
    named = set(_called(callers)) | set(graph.object_graph_def.concrete_functions)
    used = {name.lstrip("^").partition(":")[0] for node in nodes for name in node.input}
    for signature in graph.signature_def.values():
        used |= {tensor.name.partition(":")[0] for tensor in (*signature.inputs.values(), *signature.outputs.values())}
    for collection in graph.collection_def.values():
        used |= {name.partition(":")[0] for name in collection.node_list.value}
    if savers & named or entries & used:
        found |= SAVER_OPERATIONS
    return found - OPERATIONS


def _called(nodes: Iterable[Any]) -> Iterator[str]:
    for node in nodes:
        for value in node.attr.values():
            yield from (function.name for function in (value.func, *value.list.func))
