"""An IP-Adapter, as a recipe asks for it: by diffusers' own words of `load_ip_adapter`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from engines.strict import Frozen

Text = Annotated[str, StringConstraints(min_length=1)]


class IpAdapterOptions(Frozen):
    """A picture as a prompt, beside the text."""

    source: Text = Field(description="a folder or hub id such as h94/IP-Adapter, or a .safetensors file")
    subfolder: Text | None = Field(default=None, description="where the file is in source, such as models or sdxl_models")
    weight_name: Text | None = Field(default=None, description="which file, where there are several")
    image_encoder_folder: Text = Field(
        default="image_encoder",
        description="where CLIP's image tower is: in subfolder; or, with a slash in it (models/image_encoder), in source",
    )
    revision: Text | None = Field(default=None, description="hub revision; the resolved commit goes into the bundle")
