"""How networks are cut: blocks, presets, searched cuts, and the surgery on modules."""
