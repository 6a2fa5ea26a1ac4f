import pytest
from PIL import ImageDraw


@pytest.fixture
def drawn_texts(monkeypatch):
    """The texts that are drawn during the test."""
    texts, original = [], ImageDraw.Draw

    def recording(image):
        drawing = original(image)
        text = drawing.text
        drawing.text = lambda place, words, *rest, **options: (texts.append(words), text(place, words, *rest, **options))
        return drawing

    monkeypatch.setattr(ImageDraw, "Draw", recording)
    return texts
