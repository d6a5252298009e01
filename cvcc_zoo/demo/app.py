"""The page of the demo: an image goes in, and two models show what they make of it."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cvcc_zoo.data.decode import Decoding
from cvcc_zoo.demo.explain import captum, heatmap
from cvcc_zoo.demo.pictures import Picture, overlay, stages, whitened
from cvcc_zoo.trained import Trained, find_trained

TOP = 5
INTRODUCTION = """# cvcc_zoo

Drop an image, or draw one, and choose two models. Each shows its five most probable classes, what its whitening hands
to the network, where it looks for the class that it chose, and the first maps of each of its stages."""
Shown = tuple[dict[str, float], Picture | None, Picture, list[tuple[Picture, str]], str]


def gradio() -> Any:
    """The package. Raises ValueError, which says what to install."""
    try:
        import gradio
    except ImportError as error:
        raise ValueError("the demo needs `pip install 'cvcc_zoo[demo]'`") from error
    return gradio


@functools.lru_cache(maxsize=8)
def trained(name: str) -> Trained:
    """A published model, read once."""
    return find_trained(name)


def to_image(picture: Image.Image, decoding: Decoding) -> Tensor:
    """uint8 (1, C, H, W): what training made of such a picture."""
    return torch.from_numpy(decoding.pixels(Path("the image"), picture).copy())[None]


def analyse(name: str, picture: Image.Image) -> Shown:
    """Probabilities of the best classes; whitened input, heat map and stages as pictures; what they are, in words."""
    each = trained(name)
    model = each.model
    image = to_image(picture, each.decoding())
    with torch.no_grad():
        probabilities = model(image).softmax(1)[0]
    best = probabilities.topk(min(TOP, len(each.classes)))
    classes = {each.classes[index]: float(share) for share, index in zip(*best, strict=True)}
    label = int(best.indices[0])
    method, heat = heatmap(model, image, label)
    words = f"Trained on {each.dataset}. Heat map: {method} for *{each.classes[label]}*."
    return classes, whitened(model, image), overlay(image, heat), stages(model, image), words


def build(names: Sequence[str]) -> Any:
    """The page for models by name, as a Gradio app. Raises ValueError where there is none, or a package is missing."""
    if not names:
        raise ValueError("the demo needs at least one published model; see `cvcc-zoo list --pretrained`")
    gr = gradio()
    captum()  # or it would be missed at the first image

    def show(drawn: dict[str, Any] | None, *chosen: str) -> list[Any]:
        picture = drawn.get("composite") if drawn else None
        if picture is None or not np.asarray(picture.convert("RGBA"))[..., 3].any():
            raise gr.Error("Drop an image or draw one first.")
        return [part for name in chosen for part in analyse(name, picture)]

    with gr.Blocks(title="cvcc_zoo") as app:
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            editor = gr.ImageEditor(type="pil", image_mode="RGBA", label="Image", height=420)
            with gr.Column():
                defaults = (names[0], names[min(1, len(names) - 1)])
                models = [
                    gr.Dropdown(list(names), value=default, label=f"{which} model")
                    for which, default in zip(("First", "Second"), defaults, strict=True)
                ]
                button = gr.Button("Classify", variant="primary")
        outputs: list[Any] = []
        with gr.Row():
            for which in ("First", "Second"):
                with gr.Column():
                    outputs.append(gr.Label(num_top_classes=TOP, label=f"{which} model: classes"))
                    with gr.Row():
                        outputs.append(gr.Image(label="Whitened input", height=220))
                        outputs.append(gr.Image(label="Where it looks", height=220))
                    outputs.append(gr.Gallery(label="Stages: some of their maps", columns=4, height=200))
                    outputs.append(gr.Markdown())
        button.click(show, [editor, *models], outputs, api_name="classify")
    return app
