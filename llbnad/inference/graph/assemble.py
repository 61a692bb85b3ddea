"""The parts of a graph put together: the image on its canvas, the exported torch module, the decision."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from llbnad.encoders.canvases import canvas_of
from llbnad.inference.exported import Session
from llbnad.inference.graph.decision import decision
from llbnad.inference.graph.lay import lay
from llbnad.inference.graph.precision import Precision, quantised, store_half
from llbnad.inference.graph.torch_module import maps_module
from llbnad.model.model import Model

OPSET, IR_VERSION = 20, 10


def whole_graph(
    model: Model, precision: Precision, images: Sequence[np.ndarray], size: tuple[int, int] | None = None
) -> Any:
    """Return the graph from images to all outputs, as an ONNX model.

    Args:
        model: the trained model.
        precision: how weights are stored or computed.
        images: (H, W, 3) uint8, to calibrate int8 on.
        size: width and height of all images, for a region of interest that depends on them.
    """
    import onnx
    from onnx import TensorProto, helper

    canvas = canvas_of(model.encoder)
    core = _core(model, precision is Precision.float16)
    grid = tuple(one.dim_value for one in core.graph.output[0].type.tensor_type.shape.dim[1:])
    if precision is Precision.int8:
        core = quantised(core, [canvas.load(image)[0] for image in images])
    inside = np.ones(grid, bool) if canvas.config.view == "squeeze" else None
    if model.region is not None:
        inside = canvas.frame(size or canvas.size, model.region).inside(grid)
    first, last = lay(canvas), decision(canvas, grid, inside)
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
        [one for one in last.graph.output if limits is not None or one.name != "label"],
        [*(one for part in parts for one in part.initializer), *defaults],
    )
    if size is not None:
        for dim, length in zip(graph.input[0].type.tensor_type.shape.dim[1:3], reversed(size), strict=True):
            dim.dim_value = length
    if precision is Precision.float16:
        store_half(graph)
    opsets = {one.domain: one for one in [*core.opset_import, helper.make_opsetid("", OPSET)]}
    return helper.make_model(
        graph, opset_imports=list(opsets.values()), ir_version=IR_VERSION, functions=core.functions
    )


def session_of(graph: Any) -> Session:
    """Return a function that runs an ONNX model."""
    import onnxruntime

    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        score, patch_map = session.run(["score", "patch_map"], {"images": images})
        return score, patch_map

    return run


def _core(model: Model, half: bool) -> Any:
    """Return the part from canvases (B, H, W, 3) uint8 to maps (B, h, w) over them, as an ONNX model."""
    import torch

    width, height = canvas_of(model.encoder).size
    program = torch.onnx.export(
        maps_module(model, half),
        (torch.zeros((2, height, width, 3), dtype=torch.uint8),),
        input_names=["canvases"],
        output_names=["canvas_maps"],
        dynamic_shapes={"canvases": {0: torch.export.Dim("batch")}},
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    return program.model_proto
