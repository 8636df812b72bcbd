"""Scenes on disk are what the distill pass reads, with captions that are true."""

from exporter.training.captioned_images import pictures
from tools.demo import captions, scenes
from tools.demo.write_scenes import write


def test_the_folder_is_pictures_with_true_captions(tmp_path):
    write(tmp_path, 4, first=3)
    found = pictures(tmp_path, "data")
    assert [picture.name.rpartition("/")[2] for picture in found] == [f"{seed:07}.png" for seed in range(3, 7)]
    for seed, picture in enumerate(found, 3):
        said, scene = captions.parse(picture.caption), scenes.training_scene(seed)
        assert [(colour, shape) for _, colour, shape in said.objects] == [(thing.colour, thing.shape) for thing in scene.things]


def test_several_processes_write_the_same_files(tmp_path, monkeypatch):
    monkeypatch.setattr("tools.demo.write_scenes._CHUNK", 2)
    write(tmp_path / "one", 5)
    write(tmp_path / "two", 5, processes=2)
    one, two = ({file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
                for folder in (tmp_path / "one", tmp_path / "two"))  # fmt: skip
    assert len(one) == 6
    assert one == two
