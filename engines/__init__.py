"""Run time: plays a bundle. Never imports torch, diffusers, transformers, onnx, nor `exporter`."""
