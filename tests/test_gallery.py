"""The gallery: every kind of picture there is, drawn by its command, parsed and measured."""

import importlib.util
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from picture_checks import faults

import minigrad.render as rendering
from minigrad.render import STYLES, THEMES, image
from minigrad.render.terminal import cells

ROOT = Path(__file__).parents[1]
SVG = "{http://www.w3.org/2000/svg}"
SPEC = importlib.util.spec_from_file_location("gallery", ROOT / "docs" / "gallery.py")
gallery = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(gallery)
SECTIONS = list(gallery.sections())
PICTURES = [picture for _, pictures in SECTIONS for picture in pictures]
ENGINES = ["own"] + [name for name in ("graphviz-pure", "dot") if image.installed(name)]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (gallery.FOLDER, gallery.KEPT):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def scenes(monkeypatch):
    """The scenes of everything that is drawn from now on."""
    drawn, real = [], rendering.to_svg
    monkeypatch.setattr(rendering, "to_svg", lambda scene, *more: drawn.append(scene) or real(scene, *more))
    return drawn


def test_every_style_variant_and_theme_is_there():
    names = {picture.name for picture in PICTURES}
    assert len(names) == len(PICTURES)
    variants = ("V", "NIG", "NFG", "NOG", "NIAF", "NOAF", "CIFG", "NP", "FGR")
    assert {f"lstm-{v}-{s}-{t}" for v in variants for s in STYLES for t in THEMES} <= names


@pytest.mark.parametrize("title", [title for title, _ in SECTIONS])
def test_pictures_are_whole(title, scenes, monkeypatch):
    pictures = dict(SECTIONS)[title]
    # colours move nothing, so places are measured once, and with every engine
    engines = ENGINES if title.endswith(", light") or "variants" not in title else ENGINES[:1]
    found = []
    for picture in pictures:
        for engine in engines if picture.ending == "svg" else [None]:
            scenes.clear()
            options = f"{picture.options} --engine {engine}" if engine else picture.options
            gallery.draw(gallery.Picture(picture.name, picture.words, options, picture.ending))
            text = Path(picture.file).read_text(encoding="utf-8")
            if picture.ending != "svg":
                assert picture.ending == "mmd" or max(map(cells, text.splitlines())) <= 80
                continue
            root = ET.fromstring(text)
            assert len(text.encode()) < 1_000_000
            if engine == "own" or "--page" in picture.options:
                assert int(root.get("width")) <= (1123 if "--page a4" in picture.options else 1280)
            found += [f"{picture.name}, {engine}: {fault}" for fault in faults(*scenes)]
            ids = [e.get("id") for e in root.iter() if e.get("id")]
            assert len(ids) == len(set(ids))
    assert found == []


@pytest.mark.parametrize("picture", gallery.kept(), ids=lambda picture: picture.name)
def test_pictures_in_the_repository_are_of_today(picture):
    """What they show, not where it stands: a nicer layout does not make a picture wrong."""
    gallery.draw(picture)
    there, now = ((folder / picture.file).read_text(encoding="utf-8") for folder in (ROOT / "docs", Path()))
    said = [
        [
            (e.get("id"), [t.text for t in e.iter(f"{SVG}text")])
            for e in ET.fromstring(text).iter(f"{SVG}g")
            if e.get("id")
        ]
        for text in (there, now)
    ]
    assert sorted(said[0]) == sorted(said[1]), "regenerate docs/pictures with: make gallery"
    assert len(said[0]) > 5
    assert f"docs/{picture.file}" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_drawing_in_the_documentation_is_of_today():
    page = (ROOT / "docs" / "pictures.md").read_text(encoding="utf-8")
    options, shown = re.search(r"\$ minigrad render-graph (.*) -o -\n(.*?)```", page, re.S).groups()
    gallery.draw(gallery.Picture("terminal", "", options, "txt"))
    assert shown == Path(gallery.FOLDER, "terminal.txt").read_text(encoding="utf-8")
    for word in (*STYLES, *THEMES, *rendering.FORMATS):
        assert f"`{word}`" in page or f'"{word}"' in page


def test_the_page_shows_every_picture(monkeypatch):
    few = [(title, pictures[:1]) for title, pictures in SECTIONS[:2] + SECTIONS[-1:]]
    monkeypatch.setattr(gallery, "sections", lambda: iter(few))
    monkeypatch.setattr(gallery, "HERE", Path())
    monkeypatch.setattr(gallery, "kept", list)
    Path(gallery.FOLDER, "stale.svg").write_text("old")
    gallery.main()
    page = Path("gallery.md").read_text(encoding="utf-8")
    shown = re.findall(r"\{figure\} (\S+)", page)
    drawn = sorted(str(path) for path in Path(gallery.FOLDER).iterdir())
    assert drawn == sorted(picture.file for _, pictures in few for picture in pictures)
    assert shown == [few[0][1][0].file, few[1][1][0].file]
    assert "║ cell state" in page
    assert all(f"`render-graph {picture.options}`" in page for _, pictures in few for picture in pictures)


def test_a_command_that_fails_is_named():
    with pytest.raises(RuntimeError, match=r"render-graph lstm --hidden 0.*hidden must be at least 1"):
        gallery.draw(gallery.Picture("a", "", "lstm --hidden 0"))
