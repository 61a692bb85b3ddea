"""The first and the last part of an exported graph: Pillow's antialiased bilinear filter, and the decision.

The filter equals Pillow's, which training used, in every bit. A weight of input pixel x for output pixel i is a
triangle as wide as the scale, and with whole numbers, where M is the larger of the lengths n (input) and s (output):

    N(i, x) = max(0, 2 M - |(2 x + 1) s - (2 i + 1) n|),    w(i, x) = N(i, x) / Σ_x N(i, x)

Pillow rounds w to 22 binary places and each pass to 8 bits. The first pass goes along columns if the height is above
both s and 2 width - s, else along rows (Pillow 13, for a square s × s). The graph has one matrix of weights per pass. A
product of 8 and 22 bits does not fit into float32, so the weights are split into a high
and a low half of 11 bits. Both sums are whole numbers below 2²⁴, exact in float32 in whatever order they are added. The
weights come from a long division of two bits per step, because OpenVINO has no float64. They are exact for sides up to
√(2²⁰ s), 15,000 pixels at s = 224; beyond, a weight may be 2⁻²² off.

Both orders are computed, because OpenVINO's If gives wrong values where the shapes of its branches differ.

The operator Resize of ONNX is no alternative: ONNX Runtime's differs from Pillow in 1.5 % of pixels, by up to 17 of
255.
"""

from typing import Any

OPSET, IR_VERSION = 20, 10
STEPS = 12  # of the long division, 2 bits each: the 22 binary places of Pillow's weights, and 2 to round by

# weights: whole numbers of 22 binary places, in two halves; along: one pass over the last axis
RESIZE = """
<ir_version: 10, opset_import: ["" : 20, "llbnad" : 1]>
resize (uint8[batch, height, width, 3] images) => (uint8[batch, {size}, {size}, 3] squares)
{{
  high = Shape <start = 1, end = 2> (images)
  wide = Shape <start = 2, end = 3> (images)
  side = Constant <value_ints = [{size}]> ()
  both_wide = Add (wide, wide)
  saved = Sub (both_wide, side)
  limit = Max (saved, side)
  taller = Greater (high, limit)
  planes = Transpose <perm = [0, 3, 1, 2]> (images)
  pixels = Cast <to = 1> (planes)
  across = llbnad.along (pixels)
  across_turned = Transpose <perm = [0, 1, 3, 2]> (across)
  across_down = llbnad.along (across_turned)
  rows_first = Transpose <perm = [0, 3, 2, 1]> (across_down)
  turned = Transpose <perm = [0, 1, 3, 2]> (pixels)
  down = llbnad.along (turned)
  down_turned = Transpose <perm = [0, 1, 3, 2]> (down)
  down_across = llbnad.along (down_turned)
  columns_first = Transpose <perm = [0, 2, 3, 1]> (down_across)
  chosen = Where (taller, columns_first, rows_first)
  squares = Cast <to = 2> (chosen)
}}
<domain: "llbnad", opset_import: ["" : 20]>
weights (length) => (low, high)
{{
  zero = Constant <value = float {{0.0}}> ()
  one = Constant <value = float {{1.0}}> ()
  two = Constant <value = float {{2.0}}> ()
  half = Constant <value = float {{0.5}}> ()
  size = Constant <value = float {{{size}.0}}> ()
  inputs = Range (zero, length, one)
  outputs = Range (zero, size, one)
  twice_x = Mul (inputs, two)
  odd_x = Add (twice_x, one)
  x = Mul (odd_x, size)
  twice_i = Mul (outputs, two)
  odd_i = Add (twice_i, one)
  i = Mul (odd_i, length)
  last = Constant <value_ints = [-1]> ()
  column = Unsqueeze (x, last)
  apart = Sub (column, i)
  distance = Abs (apart)
  larger = Max (length, size)
  reach = Mul (larger, two)
  left = Sub (reach, distance)
  triangle = Max (left, zero)
  axis = Constant <value_ints = [0]> ()
  sum = ReduceSum <keepdims = 1> (triangle, axis)
  four = Constant <value = float {{4.0}}> ()
  digits0 = Sub (triangle, triangle)
  rest0 = Identity (triangle)
{division}
  raised = Add (digits{steps}, two)
  fourth = Div (raised, four)
  whole = Floor (fourth)
  base = Constant <value = float {{2048.0}}> ()
  quotient = Div (whole, base)
  upper = Floor (quotient)
  product = Mul (upper, base)
  lower = Sub (whole, product)
  high = Identity (upper)
  low = Identity (lower)
}}
<domain: "llbnad", opset_import: ["" : 20]>
along (pixels) => (rounded)
{{
  shape = Shape <start = -1> (pixels)
  axis = Constant <value_ints = [0]> ()
  scalar = Squeeze (shape, axis)
  length = Cast <to = 1> (scalar)
  low, high = llbnad.weights (length)
  of_low = MatMul (pixels, low)
  of_high = MatMul (pixels, high)
  base = Constant <value = float {{2048.0}}> ()
  half = Constant <value = float {{1024.0}}> ()
  part = Div (of_low, base)
  carried = Floor (part)
  both = Add (of_high, carried)
  raised = Add (both, half)
  reduced = Div (raised, base)
  rounded = Floor (reduced)
}}
"""

DIVISION = """
  moved{n} = Mul (rest{m}, four)
  nudged{n} = Add (moved{n}, half)
  ratio{n} = Div (nudged{n}, sum)
  digit{n} = Floor (ratio{n})
  taken{n} = Mul (digit{n}, sum)
  rest{n} = Sub (moved{n}, taken{n})
  shifted{n} = Mul (digits{m}, four)
  digits{n} = Add (shifted{n}, digit{n})"""

# label: 0 normal, 1 unsure, 2 defect; map: the patch map at the size of the image
DECISION = """
<ir_version: 10, opset_import: ["" : 20]>
decide (
  uint8[batch, height, width, 3] images, float[batch] score, float[batch, rows, columns] patch_map,
  float threshold, float unsure_low, float unsure_high
) => (int64[batch] label, float[batch, height, width] map)
<int64[1] axis = {1}>
{
  above = Greater (score, threshold)
  from_low = GreaterOrEqual (score, unsure_low)
  to_high = LessOrEqual (score, unsure_high)
  close = And (from_low, to_high)
  normal = Constant <value = int64 {0}> ()
  unsure = Constant <value = int64 {1}> ()
  defect = Constant <value = int64 {2}> ()
  called = Where (above, defect, normal)
  label = Where (close, unsure, called)
  planes = Unsqueeze (patch_map, axis)
  shape = Shape (planes)
  two = Constant <value_ints = [2]> ()
  none = Constant <value_ints = [0]> ()
  first = Slice (shape, none, two)
  whole = Shape <start = 1, end = 3> (images)
  sizes = Concat <axis = 0> (first, whole)
  large = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel"> (planes, , , sizes)
  map = Squeeze (large, axis)
}
"""


def resize(size: int) -> Any:
    """Return the part `images` (B, H, W, 3) -> `squares` (B, size, size, 3), both uint8, as an ONNX model."""
    from onnx import inliner, parser

    division = "".join(DIVISION.format(n=number + 1, m=number) for number in range(STEPS))
    text = RESIZE.format(size=size, division=division, steps=STEPS)
    return inliner.inline_local_functions(parser.parse_model(text))


def decision() -> Any:
    """Return the part from images, score, patch map and limits to `label` and `map`, as an ONNX model."""
    from onnx import parser

    return parser.parse_model(DECISION)
