from engines.serve.shelf import Shelf


def test_a_picture_is_there_for_an_hour_under_a_name_that_nobody_guesses():
    now = [0.0]
    shelf = Shelf(1000, lambda: now[0])
    one, two = shelf.put(b"a" * 10, "png"), shelf.put(b"b", "webp")
    assert one != two
    assert len(one) > 30
    assert (shelf.get(one), shelf.get(two)) == ((b"a" * 10, "png"), (b"b", "webp"))
    assert shelf.get("other") is None
    now[0] = 3601
    assert shelf.get(one) is None


def test_the_oldest_make_room_and_the_newest_is_always_there():
    shelf = Shelf(25)
    names = [shelf.put(bytes(10), "png") for _ in range(4)]
    assert [shelf.get(name) is not None for name in names] == [False, False, True, True]
    large = shelf.put(bytes(100), "png")
    assert shelf.get(large) is not None
    assert shelf.get(names[-1]) is None
