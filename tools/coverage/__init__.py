"""Micro models of diffusers' pipelines, with random weights: for tests, and for whoever tries what builds."""
