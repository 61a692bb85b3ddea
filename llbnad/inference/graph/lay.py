"""The first part of an exported graph: an image of any size is laid on its canvas, equal to Pillow in every bit.

Where the image lies is computed as in `llbnad.data.canvas.Canvas.frame`, in whole numbers; what is beside it on the
canvas repeats its edge. The filter is Pillow's antialiased bilinear one, which training used. The weight of input
pixel x for output pixel i is a triangle as wide as the scale, and with whole numbers, where M is the larger of the
lengths n (input) and s (output):

    N(i, x) = max(0, 2 M - |(2 x + 1) s - (2 i + 1) n|),    w(i, x) = N(i, x) / Σ_x N(i, x)

Pillow rounds w to 22 binary places and each pass to 8 bits. The first pass goes along columns if the height loses
pixels, and more than twice as many as the width loses (Pillow 13), else along rows. A pass gathers the pixels that have
a weight, 2 M / s for each output pixel, and multiplies them by their weights. A product of 8 and 22 bits does not fit
into float32, so the weights are split into a high and a low half of 11 bits. Both sums are whole numbers below 2²⁴,
exact in float32 in whatever order they are added. The weights come from a long division of two bits per step, because
OpenVINO has no float64. They are exact for sides up to √(2²⁰ s), 15,000 pixels at s = 224; beyond, a weight may be
2⁻²² off.

The images go through one order of passes, and a batch of no images through the other, because OpenVINO's If gives wrong
values where the shapes of its branches differ.

The operator Resize of ONNX is no alternative: ONNX Runtime's differs from Pillow in 1.5 % of pixels, by up to 17 of
255.
"""

from typing import Any

from llbnad.data.canvas import Canvas

SPARE = 4  # pixels that a pass gathers beyond 2 M / s: one at each end, because runtimes divide inexactly
STEPS = 12  # of the long division, 2 bits each: the 22 binary places of Pillow's weights, and 2 to round by

# size: the image's height and width; part: its height and width on the canvas; corner: its top and left there
FILLS = """
  part = Identity (canvas)
  corner = Sub (canvas, canvas)"""
# the tighter of two scales, wanted / given; lengths are rounded to whole pixels, and half to even, as by Python's round
FITS = """
  high, wide = Split <axis = 0, num_outputs = 2> (size)
  rows, columns = Split <axis = 0, num_outputs = 2> (canvas)
  by_width = Mul (columns, high)
  by_height = Mul (rows, wide)
  tighter = LessOrEqual (by_width, by_height)
  wanted = Where (tighter, columns, rows)
  given = Where (tighter, wide, high)
  scaled = Mul (size, wanted)
  quotient = Div (scaled, given)
  covered = Mul (quotient, given)
  rest = Sub (scaled, covered)
  twice_rest = Mul (rest, two)
  above = Greater (twice_rest, given)
  at_half = Equal (twice_rest, given)
  halved = Div (quotient, two)
  even = Mul (halved, two)
  odd = Greater (quotient, even)
  to_even = And (at_half, odd)
  rises = Or (above, to_even)
  rise = Cast <to = 7> (rises)
  rounded = Add (quotient, rise)
  part = Max (rounded, one)
  margins = Sub (canvas, part)
  middle = Div (margins, two)
  cells = Div (middle, cell)
  corner = Mul (cells, cell)"""

LAY = """
<ir_version: 10, opset_import: ["" : 20, "llbnad" : 1]>
lay (uint8[batch, height, width, 3] images) =>
  (uint8[batch, {rows}, {columns}, 3] canvases, int64[2] part, int64[2] corner)
<int64[1] none = {{0}}, int64[1] one = {{1}}, int64[1] two = {{2}}, int64[1] cell = {{{cell}}},
  int64[2] canvas = {{{rows}, {columns}}}, int64[4] shape = {{-1, {rows}, {columns}, 3}}>
{{
  size = Shape <start = 1, end = 3> (images)
{place}
  tall, broad = Split <axis = 0, num_outputs = 2> (canvas)
  down, across = Split <axis = 0, num_outputs = 2> (part)
  top, left = Split <axis = 0, num_outputs = 2> (corner)
  lost = Sub (size, part)
  lost_down, lost_across = Split <axis = 0, num_outputs = 2> (lost)
  twice_across = Mul (lost_across, two)
  bound = Max (twice_across, none)
  columns_first = Greater (lost_down, bound)
  batch_size = Shape <end = 1> (images)
  flag = Cast <to = 7> (columns_first)
  border = Mul (batch_size, flag)
  first = Slice (images, none, border, none)
  first_down = llbnad.along (first, tall, down, top)
  first_turned = Transpose <perm = [0, 2, 1, 3]> (first_down)
  first_across = llbnad.along (first_turned, broad, across, left)
  first_done = Transpose <perm = [0, 2, 1, 3]> (first_across)
  other = Slice (images, border, batch_size, none)
  other_turned = Transpose <perm = [0, 2, 1, 3]> (other)
  other_across = llbnad.along (other_turned, broad, across, left)
  other_back = Transpose <perm = [0, 2, 1, 3]> (other_across)
  other_done = llbnad.along (other_back, tall, down, top)
  joined = Concat <axis = 0> (first_done, other_done)
  canvases = Reshape (joined, shape)
}}
<domain: "llbnad", opset_import: ["" : 20]>
along (pixels, whole, part, corner) => (resized)
{{
  none = Constant <value_ints = [0]> ()
  one = Constant <value_ints = [1]> ()
  two = Constant <value_ints = [2]> ()
  three = Constant <value_ints = [3]> ()
  spare = Constant <value_ints = [{spare}]> ()
  start = Constant <value = int64 {{0}}> ()
  step = Constant <value = int64 {{1}}> ()
  batch = Shape <end = 1> (pixels)
  length = Shape <start = 1, end = 2> (pixels)
  beside = Shape <start = 2, end = 3> (pixels)
  numbers = Mul (beside, three)
  end = Squeeze (whole, none)
  places = Range (start, end, step)
  moved = Sub (places, corner)
  from_first = Max (moved, none)
  last = Sub (part, one)
  i = Min (from_first, last)
  twice_i = Mul (i, two)
  odd_i = Add (twice_i, one)
  centres = Mul (odd_i, length)
  larger = Max (length, part)
  reach = Mul (larger, two)
  ratio = Div (reach, part)
  taps = Add (ratio, spare)
  double = Mul (part, two)
  lift = Mul (double, taps)
  lowest = Sub (centres, reach)
  lifted = Add (lowest, lift)
  lifted_x = Div (lifted, double)
  above_x = Sub (lifted_x, taps)
  first_x = Sub (above_x, one)
  columns = Unsqueeze (first_x, one)
  count = Squeeze (taps, none)
  steps = Range (start, count, step)
  x = Add (columns, steps)
  twice_x = Mul (x, two)
  odd_x = Add (twice_x, one)
  pixel_centres = Mul (odd_x, part)
  centre = Unsqueeze (centres, one)
  apart = Sub (pixel_centres, centre)
  distance = Abs (apart)
  left = Sub (reach, distance)
  height = Max (left, none)
  from_start = GreaterOrEqual (x, none)
  to_end = Less (x, length)
  there = And (from_start, to_end)
  triangle = Where (there, height, none)
  low, high = llbnad.weights (triangle)
  low_row = Unsqueeze (low, one)
  high_row = Unsqueeze (high, one)
  weights = Concat <axis = 1> (low_row, high_row)
  last_x = Sub (length, one)
  up_to = Min (x, last_x)
  index = Max (up_to, none)
  gathered = Gather <axis = 1> (pixels, index)
  shape = Concat <axis = 0> (batch, whole, taps, numbers)
  rows = Reshape <allowzero = 1> (gathered, shape)
  values = Cast <to = 1> (rows)
  sums = MatMul (weights, values)
  of_low, of_high = Split <axis = 2, num_outputs = 2> (sums)
  base = Constant <value = float {{2048.0}}> ()
  half = Constant <value = float {{1024.0}}> ()
  share = Div (of_low, base)
  carried = Floor (share)
  both = Add (of_high, carried)
  raised = Add (both, half)
  reduced = Div (raised, base)
  rounded = Floor (reduced)
  bytes = Cast <to = 2> (rounded)
  back = Concat <axis = 0> (batch, whole, beside, three)
  resized = Reshape <allowzero = 1> (bytes, back)
}}
<domain: "llbnad", opset_import: ["" : 20]>
weights (numerators) => (low, high)
{{
  triangle = Cast <to = 1> (numerators)
  two = Constant <value = float {{2.0}}> ()
  half = Constant <value = float {{0.5}}> ()
  four = Constant <value = float {{4.0}}> ()
  axis = Constant <value_ints = [-1]> ()
  sum = ReduceSum <keepdims = 1> (triangle, axis)
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


def lay(canvas: Canvas) -> Any:
    """Return the part that lays images on their canvas, as an ONNX model.

    Input: `images` (B, H, W, 3) uint8. Output: `canvases` (B, rows, columns, 3) uint8, and `part` and `corner`: height
    and width of the image on the canvas, and its top and left there, both (2,) int64, in pixels.
    """
    from onnx import inliner, parser

    division = "".join(DIVISION.format(n=number + 1, m=number) for number in range(STEPS))
    columns, rows = canvas.size
    place = FILLS if canvas.config.view == "squeeze" else FITS
    values = {"rows": rows, "columns": columns, "cell": canvas.cell, "place": place, "division": division}
    text = LAY.format(**values, steps=STEPS, spare=SPARE)
    return inliner.inline_local_functions(parser.parse_model(text))
