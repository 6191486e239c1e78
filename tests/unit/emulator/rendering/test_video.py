from __future__ import annotations

import sys
from pathlib import Path

import av
import pytest
from PIL import Image, ImageChops, ImageStat

from airflow_provider_kling.emulator.rendering.video import (
    EncoderMissing,
    Film,
    frame_size,
    placeholder,
    render_video,
)


def picture() -> Image.Image:
    """Left half red, right half blue, to be recognised in the video."""
    image = Image.new("RGB", (800, 400), (200, 30, 30))
    image.paste((30, 30, 200), (400, 0, 800, 400))
    return image


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("video") / "v.mp4"
    render_video(path, seconds=3, caption="Two colours, slowly", picture=picture())
    return path


def frames(path: Path) -> list[Image.Image]:
    with av.open(str(path)) as container:
        return [frame.to_image() for frame in container.decode(video=0)]


def test_it_is_h264_in_mp4_of_exactly_the_length(rendered: Path):
    with av.open(str(rendered)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert container.duration == 3_000_000
        assert stream.duration * stream.time_base == 3
        assert stream.average_rate == 24
        assert sum(1 for _ in container.decode(video=0)) == 72


def test_it_plays_from_its_first_bytes(rendered: Path):
    content = rendered.read_bytes()
    assert content[4:8] == b"ftyp"
    assert content.index(b"moov") < content.index(b"mdat")


def test_it_shows_the_picture_in_its_shape(rendered: Path):
    first = frames(rendered)[0]
    assert first.size == (1280, 640)
    left, right = first.crop((0, 0, 500, 300)), first.crop((780, 0, 1280, 300))
    assert ImageStat.Stat(left).mean == pytest.approx([200, 30, 30], abs=8)
    assert ImageStat.Stat(right).mean == pytest.approx([30, 30, 200], abs=8)


def test_it_moves(rendered: Path):
    shown = frames(rendered)
    assert ImageChops.difference(shown[0], shown[-1]).getbbox() is not None


def test_the_caption_is_written_over_the_lower_edge(rendered: Path):
    first = frames(rendered)[0]
    band = first.crop((0, first.height - 60, first.width, first.height)).convert("L")
    low, high = band.getextrema()
    assert high > 230, "no white letters"
    assert low < 60, "no dark band"


def test_the_same_input_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        render_video(tmp_path / name, seconds=1, caption="same", picture=picture())
    render_video(tmp_path / "c", seconds=1, caption="other", picture=picture())
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b
    assert a != c


@pytest.mark.parametrize(
    ("ratio", "size"),
    [("16:9", (1280, 720)), ("9:16", (720, 1280)), ("1:1", (960, 960)), (None, (1280, 720))],
)
def test_text_to_video_takes_the_aspect_ratio(tmp_path, ratio: str | None, size: tuple[int, int]):
    path = tmp_path / "v.mp4"
    render_video(path, seconds=1, caption="nothing but words", aspect_ratio=ratio)
    assert frames(path)[0].size == size


@pytest.mark.parametrize("shape", [(1024, 576), (300, 750), (301, 299), (5000, 2000), (777, 333)])
def test_frames_are_even_of_the_720p_class_and_keep_the_shape(shape: tuple[int, int]):
    width, height = frame_size(shape)
    assert width % 2 == height % 2 == 0
    assert max(width, height) <= 1280
    assert width * height <= 1280 * 720 * 1.01
    assert width / height == pytest.approx(shape[0] / shape[1], rel=0.01)


@pytest.mark.parametrize("caption", ["", "¡Qué día! 猫 \N{CAT FACE} \x00", "word " * 400, "x" * 500])
def test_any_caption_can_be_drawn_on_any_shape(tmp_path, caption: str):
    odd = Image.new("L", (751, 301), 128)
    path = tmp_path / "v.mp4"
    render_video(path, seconds=1, caption=caption, picture=odd)
    assert len(frames(path)) == 24


def test_a_placeholder_is_a_valid_picture_of_its_own():
    assert min(placeholder("one").size) >= 300
    assert placeholder("one").tobytes() != placeholder("two").tobytes()


def test_without_the_encoder_the_error_names_the_extra(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(EncoderMissing, match=r"airflow-provider-kling\[emulator\]") as raised:
        render_video(tmp_path / "v.mp4", seconds=1, caption="")
    assert raised.value.name == "av"
    assert list(tmp_path.iterdir()) == []


def test_one_film_makes_videos_that_differ_at_their_beginning_alone(tmp_path):
    film = Film(seconds=2, caption="the same words", picture=picture())
    paths = [tmp_path / f"{number}.mp4" for number in range(3)]
    for path, label in zip(paths, ("No. 1: abc", "No. 2: 5bc8fbbc:klingai/v2/x", "No. 1: abc"), strict=True):
        film.write(path, label)
    one, other, again = (path.read_bytes() for path in paths)
    assert one == again != other
    pairs = list(zip(frames(paths[0]), frames(paths[1]), strict=True))
    assert len(pairs) == 48
    assert all(ImageChops.difference(*pair).getbbox() for pair in pairs[:12])
    assert not any(ImageChops.difference(*pair).getbbox() for pair in pairs[12:])


def test_the_label_is_at_the_top(tmp_path):
    labelled, plain = tmp_path / "a.mp4", tmp_path / "b.mp4"
    film = Film(seconds=1, caption="below", picture=picture())
    film.write(labelled, "above")
    film.write(plain)
    changed = ImageChops.difference(frames(labelled)[0].convert("L"), frames(plain)[0].convert("L"))
    box = changed.point(lambda level: 255 if level > 60 else 0).getbbox()
    assert box is not None
    assert box[3] < changed.height / 4
