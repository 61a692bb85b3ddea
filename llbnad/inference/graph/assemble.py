"""The parts of a graph put together: Pillow's resize, the exported torch module, the decision."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from llbnad.inference.exported import Session
from llbnad.inference.graph.precision import Precision, quantised, store_half
from llbnad.inference.graph.torch_module import whole_module
from llbnad.inference.graph.whole import IR_VERSION, OPSET, decision, resize
from llbnad.model.model import Model


def whole_graph(model: Model, precision: Precision, squares: Sequence[np.ndarray]) -> Any:
    """Return the graph from images to all outputs, as an ONNX model. `squares` are images (S, S, 3) to calibrate on."""
    import onnx
    from onnx import TensorProto, helper

    core = _core(model, precision is Precision.float16)
    if precision is Precision.int8:
        core = quantised(core, squares)
    first, last = resize(model.encoder.input_size), decision()
    # the parts keep their inputs and outputs, by which they are joined
    middle, last = (
        onnx.compose.add_prefix(part, prefix, rename_inputs=False, rename_outputs=False)
        for part, prefix in ((core, "core/"), (last, "decision/"))
    )
    limits = model.threshold
    unsure = (limits.unsure_low, limits.unsure_high) if limits is not None and limits.unsure else (np.inf, -np.inf)
    values = (np.inf if limits is None else limits.value, *unsure)
    names = ("threshold", "unsure_low", "unsure_high")
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, []) for name in names]
    defaults = [
        helper.make_tensor(name, TensorProto.FLOAT, [], [value]) for name, value in zip(names, values, strict=True)
    ]
    parts = (first.graph, middle.graph, last.graph)
    graph = helper.make_graph(
        [node for part in parts for node in part.node],
        "llbnad",
        [*first.graph.input, *inputs],
        [*middle.graph.output, *(one for one in last.graph.output if limits is not None or one.name != "label")],
        [*(one for part in parts for one in part.initializer), *defaults],
    )
    if precision is Precision.float16:
        store_half(graph)
    opsets = {one.domain: one for one in [*core.opset_import, helper.make_opsetid("", OPSET)]}
    return helper.make_model(
        graph, opset_imports=list(opsets.values()), ir_version=IR_VERSION, functions=core.functions
    )


def session_of(graph: Any) -> Session:
    """Return a function that runs an ONNX model on squares."""
    import onnxruntime

    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        score, patch_map = session.run(["score", "patch_map"], {"images": images})
        return score, patch_map

    return run


def _core(model: Model, half: bool) -> Any:
    """Return the part from squares (B, S, S, 3) uint8 to score and patch map, as an ONNX model."""
    import torch

    size = model.encoder.input_size
    example = torch.zeros((2, size, size, 3), dtype=torch.uint8)
    program = torch.onnx.export(
        whole_module(model, half),
        (example,),
        input_names=["squares"],
        output_names=["score", "patch_map"],
        dynamic_shapes={"squares": {0: torch.export.Dim("batch")}},
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    return program.model_proto
