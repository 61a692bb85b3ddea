"""The parts of an exported graph, each in ONNX: Pillow's resize, encoder, detector, decision; and their precision."""
