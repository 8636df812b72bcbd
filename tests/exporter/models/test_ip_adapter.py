"""An IP-Adapter at hand: what a UNet's config says of it, and what depends on it."""

from exporter.models.ip_adapter import IpAdapter, having, without


def test_the_unet_s_config_is_its_own_again():
    config = {"cross_attention_dim": 768, "encoder_hid_dim_type": None}
    assert having(config)["encoder_hid_dim_type"] == "ip_image_proj"
    assert without(having(config)) == config


def test_its_digest_is_that_of_the_file(tmp_path):
    found = []
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
        found.append(IpAdapter(tmp_path / name, {}).digest)
    assert found[0] == found[1] != found[2]
