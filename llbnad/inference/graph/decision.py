"""The last part of an exported graph: from the detector's map over the canvas to the image's score, label and maps.

It is `llbnad.detectors.base.judge` (patches that do not count are 0 and not scored) and
`llbnad.data.canvas.Frame.off_canvas` (Pillow's antialiased bilinear filter from the image's box on the canvas) in ONNX.
Where the image fills the canvas, that filter changes nothing.
"""

from typing import Any

import numpy as np
from PIL import Image

from llbnad.data.canvas import HALF, ROUNDING, Canvas
from llbnad.detectors.base import scored_patches

# `inside`, the patches that count, where it is no constant: those with at least half of their area on the image
ON_IMAGE = """
  end = Add (corner, part)
  top, left = Split <axis = 0, num_outputs = 2> (corner)
  bottom, right = Split <axis = 0, num_outputs = 2> (end)
  below_top = GreaterOrEqual (canvas_rows, top)
  above_bottom = Less (canvas_rows, bottom)
  on_rows = And (below_top, above_bottom)
  after_left = GreaterOrEqual (canvas_columns, left)
  before_right = Less (canvas_columns, right)
  on_columns = And (after_left, before_right)
  row_marks = Cast <to = 1> (on_rows)
  column_marks = Cast <to = 1> (on_columns)
  row_shares = MatMul (of_rows, row_marks)
  column_shares = MatMul (of_columns, column_marks)
  of_row = Unsqueeze (row_shares, second)
  shares = Mul (of_row, column_shares)
  largest = ReduceMax <keepdims = 0> (shares)
  bar = Min (largest, half)
  nearly = Sub (bar, rounding)
  inside = GreaterOrEqual (shares, nearly)"""

# label: 0 normal, 1 unsure, 2 defect; map: the patch map at the size of the image
DECISION = """
<ir_version: 10, opset_import: ["" : 20, "llbnad" : 1]>
judge (
  uint8[batch, height, width, 3] images, float[batch, {h}, {w}] canvas_maps, int64[2] part, int64[2] corner,
  float threshold, float unsure_low, float unsure_high
) => (
  float[batch] score, int64[batch] label, float[batch, height, width] map, float[batch, rows, columns] patch_map
)
<int64[1] first = {{0}}, int64[1] second = {{1}}, int64[1] two = {{2}}, int64[2] flat = {{-1, {patches}}},
  int64[1] most = {{{most}}}, float zero = {{0}}, float lowest = {{-3e38}}, float half = {{{half}}},
  float rounding = {{{rounding}}}, float[2] grid = {{{h}, {w}}}, float[2] canvas = {{{rows}, {columns}}}>
{{{inside}
  kept = Where (inside, canvas_maps, zero)
  counting = Where (inside, canvas_maps, lowest)
  rows_of_patches = Reshape (counting, flat)
  highest, places = TopK (rows_of_patches, most)
  marks = Cast <to = 7> (inside)
  members = ReduceSum <keepdims = 0> (marks)
  top_count = Gather (counts, members)
  is_top = Less (ranks, top_count)
  top_values = Where (is_top, highest, zero)
  top_sum = ReduceSum <keepdims = 0> (top_values, second)
  top_number = Cast <to = 1> (top_count)
  score = Div (top_sum, top_number)
  above = Greater (score, threshold)
  from_low = GreaterOrEqual (score, unsure_low)
  to_high = LessOrEqual (score, unsure_high)
  close = And (from_low, to_high)
  normal = Constant <value = int64 {{0}}> ()
  unsure = Constant <value = int64 {{1}}> ()
  defect = Constant <value = int64 {{2}}> ()
  called = Where (above, defect, normal)
  label = Where (close, unsure, called)
  part_pixels = Cast <to = 1> (part)
  corner_pixels = Cast <to = 1> (corner)
  part_product = Mul (part_pixels, grid)
  corner_product = Mul (corner_pixels, grid)
  part_patches = Div (part_product, canvas)
  corner_patches = Div (corner_product, canvas)
  nearest = Round (part_patches)
  one = Constant <value = float {{1.0}}> ()
  lengths = Max (nearest, one)
  row_count, column_count = Split <axis = 0, num_outputs = 2> (lengths)
  row_part, column_part = Split <axis = 0, num_outputs = 2> (part_patches)
  row_corner, column_corner = Split <axis = 0, num_outputs = 2> (corner_patches)
  row_weights = llbnad.filter (patch_rows, row_corner, row_part, row_count)
  column_weights = llbnad.filter (patch_columns, column_corner, column_part, column_count)
  column_turned = Transpose (column_weights)
  along_rows = MatMul (kept, column_turned)
  patch_map = MatMul (row_weights, along_rows)
  planes = Unsqueeze (patch_map, second)
  shape = Shape (planes)
  two_axes = Slice (shape, first, two)
  size = Shape <start = 1, end = 3> (images)
  sizes = Concat <axis = 0> (two_axes, size)
  large = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel"> (planes, , , sizes)
  map = Squeeze (large, second)
}}
<domain: "llbnad", opset_import: ["" : 20]>
filter (given, corner, part, count) => (weights)
{{
  axis = Constant <value_ints = [1]> ()
  last = Constant <value_ints = [-1]> ()
  zero = Constant <value = float {{0.0}}> ()
  one = Constant <value = float {{1.0}}> ()
  half = Constant <value = float {{0.5}}> ()
  only = Constant <value_ints = [0]> ()
  end = Squeeze (count, only)
  numbers = Range (zero, end, one)
  middles = Add (numbers, half)
  scale = Div (part, count)
  scaled = Mul (middles, scale)
  centres = Add (scaled, corner)
  centre = Unsqueeze (centres, axis)
  at = Add (given, half)
  apart = Sub (at, centre)
  distance = Abs (apart)
  reach = Max (scale, one)
  share = Div (distance, reach)
  left = Sub (one, share)
  triangle = Max (left, zero)
  sum = ReduceSum <keepdims = 1> (triangle, last)
  weights = Div (triangle, sum)
}}
"""


def decision(canvas: Canvas, grid: tuple[int, int], inside: np.ndarray | None) -> Any:
    """Return the last part as an ONNX model.

    Inputs: `images`, `canvas_maps` (B, h, w), `part` and `corner` (`graph.lay`), and the three limits of the score.
    Outputs: `score`, `label`, `map` and `patch_map`, as `llbnad.inference.export` describes them.

    Args:
        canvas: what images are laid on.
        grid: h and w of the detector's map.
        inside: (h, w) bool, the patches that count; None: those on the image.
    """
    from onnx import inliner, numpy_helper, parser

    (columns, rows), (h, w) = canvas.size, grid
    most = scored_patches(h * w)
    values = {"h": h, "w": w, "patches": h * w, "most": most, "rows": rows, "columns": columns, "half": HALF}
    text = DECISION.format(**values, rounding=f"{ROUNDING:f}", inside=ON_IMAGE if inside is None else "")
    model = inliner.inline_local_functions(parser.parse_model(text))
    constants: dict[str, np.ndarray] = {
        "counts": np.array([scored_patches(members) for members in range(h * w + 1)]),
        "ranks": np.arange(most),
        "patch_rows": np.arange(h, dtype=np.float32),
        "patch_columns": np.arange(w, dtype=np.float32),
    }
    if inside is None:
        constants |= {"canvas_rows": np.arange(rows), "canvas_columns": np.arange(columns)}
        constants |= {"of_rows": _shares(rows, h), "of_columns": _shares(columns, w)}
    else:
        constants["inside"] = inside
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    return model


def _shares(pixels: int, patches: int) -> np.ndarray:
    """Return the share of each patch (patches, pixels) that a row or column of pixels takes, as Pillow computes it."""
    return np.asarray(Image.fromarray(np.eye(pixels, dtype=np.float32)).resize((pixels, patches), Image.Resampling.BOX))
