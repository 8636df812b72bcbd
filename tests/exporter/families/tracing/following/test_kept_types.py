"""Networks keep their number format while a pipeline is followed, and are given what is of it."""

from types import SimpleNamespace

import torch

from exporter.families.tracing.following.kept_types import kept_types


class Halves(torch.nn.Linear):
    """A network with the two halves of a VAE."""

    dtype = property(lambda self: self.weight.dtype)

    def encode(self, picture):
        return self(picture)

    def decode(self, latent, *, scale=1.0):
        return self(latent) * scale


def test_networks_stay_of_their_type_while_a_pipeline_is_followed():
    network = torch.nn.Linear(2, 2)
    with kept_types(SimpleNamespace(components={"vae": network, "scheduler": None})):
        assert network.to(torch.float16) is network
        assert network.weight.dtype == torch.float32
    assert network.to(torch.float16).weight.dtype == torch.float16


def test_a_vae_that_a_pipeline_would_have_wider_is_given_what_it_takes():
    vae = Halves(2, 2).to(torch.bfloat16)
    seen = vae.encode = lambda picture: (picture.dtype, Halves.encode(vae, picture))  # as what watches it does
    with kept_types(SimpleNamespace(components={"vae": vae})):
        vae.to(torch.float32)
        assert vae.encode(torch.ones(1, 2))[0] == torch.bfloat16
        assert vae.decode(torch.ones(1, 2), scale=2.0).dtype == torch.bfloat16
    assert vars(vae)["encode"] is seen
    assert not vars(vae).keys() & {"to", "decode"}
