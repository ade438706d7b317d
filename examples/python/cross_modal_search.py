"""Find page images by text queries, which share one embedding space.

The script draws the pages itself. By default, `make serve` serves a stand-in with the flagship's architecture and
random weights, so the ranking means nothing. For a meaningful ranking, serve the real checkpoint (`make serve
MODEL=...`) and set TESSERA_MODEL to its id.
"""

import base64
import io
import os

import numpy as np
import requests
from PIL import Image, ImageDraw

URL = os.environ.get("TESSERA_URL", "http://127.0.0.1:8000")
API_KEY = os.environ.get("TESSERA_API_KEY", "none")
MODEL = os.environ.get("TESSERA_MODEL", "tiny/llama-nemotron-embed-vl")

PAGES = {
    "invoice": [
        "INVOICE No. 1042",
        "",
        "3 x office chair      450.00",
        "1 x standing desk     620.00",
        "Total    1070.00",
    ],
    "recipe": [
        "Pancakes",
        "",
        "Whisk 200 g flour, 3 eggs and",
        "300 ml milk. Fry in butter until",
        "golden on both sides.",
    ],
    "timetable": ["Departures", "", "08:12  Lyon        platform 4", "08:30  Marseille   platform 7"],
    "safety": ["IN CASE OF FIRE", "", "Leave by the nearest exit.", "Do not use the lifts."],
}
QUERIES = [
    "How much did the desk cost?",
    "Which platform does the train to Lyon leave from?",
    "ingredients for pancakes",
]


def draw_page(lines: list[str]) -> str:
    """Return a page with these lines as a PNG data URL."""
    page = Image.new("RGB", (595, 842), "white")
    draw = ImageDraw.Draw(page)
    for number, line in enumerate(lines):
        draw.text((50, 60 + 40 * number), line, fill="black", font_size=28)
    png = io.BytesIO()
    page.save(png, "PNG")
    return "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()


def embed(items: list[str], input_type: str) -> np.ndarray:
    """Return the items' unit vectors, of shape (n, dimensions)."""
    response = requests.post(
        f"{URL}/v1/embeddings",
        headers={"Authorization": f"Bearer {API_KEY}"},
        json={"model": MODEL, "input": items, "input_type": input_type},
        timeout=120,
    )
    response.raise_for_status()
    return np.array([entry["embedding"] for entry in response.json()["data"]])


pages = embed([draw_page(lines) for lines in PAGES.values()], "passage")
for query, scores in zip(QUERIES, embed(QUERIES, "query") @ pages.T, strict=True):
    ranking = sorted(zip(scores, PAGES, strict=True), reverse=True)
    print(f"{query}  →  " + ", ".join(f"{name} {score:.3f}" for score, name in ranking))
