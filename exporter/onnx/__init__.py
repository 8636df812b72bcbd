"""Parts become ONNX: capture, precision, export, and parts joined to one graph."""
