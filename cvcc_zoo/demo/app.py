"""The demo's page: a Gradio app that shows the predictions and the inner workings of two models for an image."""

import functools
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cvcc_zoo.data.decode import Decoding
from cvcc_zoo.data.pictures import as_png
from cvcc_zoo.demo.examples import write_examples
from cvcc_zoo.demo.explain import Picture, heatmap, overlay, stages, whitened
from cvcc_zoo.demo.uploads import REMOVED, as_files, decoded, is_blank
from cvcc_zoo.registry import needed
from cvcc_zoo.zoo.trained import Trained, find_trained

TOP = 5
INTRODUCTION = """# cvcc_zoo

Drop an image, draw one, or click an example, and choose two models. Each shows its five most probable classes, the
whitened image, a heat map of the pixels that speak for the predicted class, and the first maps of each of its stages.
The field stays empty for a file that your browser cannot show, such as a TIFF: use `cvcc-zoo predict` for those."""
EMPTY = "Drop an image, draw one, or click an example."
STYLE = """<style>.zoo { display: grid; grid-template-columns: repeat(auto-fill, minmax(7.5rem, 1fr)); gap: 0.8rem; }
.zoo figure { margin: 0; }
.zoo img { width: 100%; image-rendering: pixelated; display: block; border-radius: 4px; }
.zoo figcaption { font-size: 0.85rem; margin-top: 0.2rem; }</style>"""
Shown = tuple[dict[str, float], list[tuple[Picture, str]], str]


@functools.lru_cache(maxsize=8)
def trained(name: str) -> Trained:
    """Return a published model, read once."""
    return find_trained(name)


def to_image(path: str, decoding: Decoding) -> Tensor:
    """Decode an image file as in training, to uint8 (1, C, H, W). Raises ValueError if it cannot be read."""
    return torch.from_numpy(decoded(path, decoding))[None]


def analyse(name: str, path: str) -> Shown:
    """Return the probabilities of the top classes, pictures (whitened input, heat map, stages), and a description."""
    each = trained(name)
    model = each.model
    image = to_image(path, model.decoding())
    with torch.no_grad():
        probabilities = model(image).softmax(1)[0]
    best = probabilities.topk(min(TOP, len(each.classes)))
    classes = {each.classes[index]: float(share) for share, index in zip(*best, strict=True)}
    label = int(best.indices[0])
    method, heat = heatmap(model, image, label)
    white = whitened(model, image)
    pictures = [] if white is None else [(white, "whitened input")]
    pictures += [(overlay(image, heat), "where it looks"), *stages(model, image)]
    return classes, pictures, f"Heat map: {method} for {each.classes[label]}."


def knowledge(name: str) -> str:
    """Return the data set and the classes of a model, as HTML."""
    each = trained(name)
    names = html.escape(", ".join(each.classes))
    return f"<p>Knows {len(each.classes):,} classes of {html.escape(each.dataset or 'unknown data')}: {names}.</p>"


def as_html(pictures: Sequence[tuple[Picture, str]], text: str) -> str:
    """Return pictures side by side with captions, and a text below them, as HTML."""
    figures = [
        f'<figure><img src="{as_png(picture / 255)}" alt="{html.escape(caption)}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for picture, caption in pictures
    ]
    return f'{STYLE}<div class="zoo">{"".join(figures)}</div><p>{html.escape(text)}</p>'


def show(drawn: dict[str, str | None] | None, *chosen: str) -> list[Any]:
    """Return the classes, the pictures and the knowledge of each chosen model for the image file in the editor.

    If there is no image, or it cannot be read, a message replaces the pictures.
    """
    path = drawn.get("composite") or drawn.get("background") if drawn else None  # an example has only the latter
    message, parts = EMPTY, list[Any]()
    try:
        seen = path is not None and not is_blank(path)
    except ValueError as error:
        seen, message = False, str(error)
    for name in chosen:
        classes, pictures = None, f"<p>{html.escape(message)}</p>"
        if path is not None and seen:
            try:
                classes, found, method = analyse(name, path)
                pictures = as_html(found, method)
            except ValueError as error:
                pictures = f"<p>{html.escape(str(error))}</p>"
        parts += [classes, pictures, knowledge(name)]
    return parts


def build(names: Sequence[str], files: Path) -> Any:
    """Return the page for models by name, as a Gradio app; its example images are written to the folder `files`.

    Raises ValueError if there is no model, or a package is missing.
    """
    if not names:
        raise ValueError("the demo needs at least one published model; see `cvcc-zoo list --pretrained`")
    gr = needed("gradio", "the demo", "demo")
    needed("captum.attr", "the demo", "demo")  # fail now, not at the first image
    with gr.Blocks(title="cvcc_zoo", analytics_enabled=False, delete_cache=REMOVED) as app:
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            editor = gr.ImageEditor(type="pil", image_mode="RGBA", label="Image", height=420)
            as_files(editor)
            with gr.Column():
                defaults = (names[0], names[min(1, len(names) - 1)])
                models = [
                    gr.Dropdown(list(names), value=default, label=f"{which} model")
                    for which, default in zip(("First", "Second"), defaults, strict=True)
                ]
                paths = [str(path) for path in write_examples(files)]
                examples = gr.Dataset(
                    components=[gr.Image(visible=False)],
                    samples=[[path] for path in paths],
                    type="index",
                    label="Examples",
                )
        outputs: list[Any] = []
        with gr.Row():
            for which in ("First", "Second"):
                with gr.Column():
                    outputs.append(gr.Label(num_top_classes=TOP, label=f"{which} model: classes"))
                    outputs += [gr.HTML(), gr.HTML()]
        examples.click(
            lambda place, *chosen: [paths[place], *show({"background": paths[place]}, *chosen)],
            [examples, *models],
            [editor, *outputs],
            api_name=False,
            show_progress="minimal",
        )
        # an act of a user causes several of these events; Gradio 6 sends the editor empty at some, with the image last
        edited = (editor.input, editor.change, editor.upload, editor.clear)
        gr.on(
            [app.load, *edited, *(model.change for model in models)],
            show,
            [editor, *models],
            outputs,
            api_name="classify",
            show_progress="hidden",  # the page would flicker, because one act of a user causes several events
            trigger_mode="always_last",
        )
    return app
