"""ComfyUI nodes that draw with a bundle: copy or link this folder into `ComfyUI/custom_nodes`, where t2iexport is installed."""

from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
