"""Compile time: turns a recipe into a bundle. torch, diffusers, transformers and onnx live here, and only here."""
