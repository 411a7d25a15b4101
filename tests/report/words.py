"""The text of a figure."""

from xml.etree import ElementTree


def words(svg: str) -> list[str]:
    """The texts of an SVG, in order."""
    return [text.strip() for text in ElementTree.fromstring(svg).itertext() if text.strip()]
