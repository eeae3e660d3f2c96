"""An exported model with onnxruntime, numpy and Pillow alone: python predict.py model.onnx photo.jpg ..."""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def pixels_of(path: str) -> np.ndarray:
    with open(path, "rb") as file:  # of a name, Pillow 13 leaves some TIFF on their side
        image = ImageOps.exif_transpose(Image.open(file))
    values = np.asarray(image)  # of 16 bits also as "I", in some formats
    if image.mode.startswith("I;16") or (image.mode == "I" and values.min() >= 0 and values.max() < 65536):
        image = Image.fromarray((values >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        sys.exit(f"{path} has 32 bits a pixel, which may mean any range: save it with 8 or 16")
    return np.array(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB"))


_, model, *paths = sys.argv if len(sys.argv) > 2 else sys.exit(__doc__)
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
use = json.loads(session.get_modelmeta().custom_metadata_map["snellen"])["use"]
names, classes = [output.name for output in session.get_outputs()], use["classes"]
for path in paths:
    said = dict(zip(names, session.run(names, {"image": pixels_of(path)[None]})))
    if use["task"] in ("detection", "instances"):
        shown = said["scores"] >= np.array(use["thresholds"], np.float32)[said["labels"]]
        found = zip(said["labels"][shown], said["scores"][shown].tolist(), said["boxes"][shown].tolist())
        answer: object = [{"label": classes[k], "confidence": score, "box": box} for k, score, box in found]
    elif use["task"] == "segmentation":
        answer = {name: float((said["classes"] == k).mean()) for k, name in enumerate(classes)}
    elif use["task"] == "regression":
        answer = dict(zip(classes, said["values"][0].tolist()))
    elif use["task"] == "multilabel":
        answer = [name for name, present in zip(classes, said["present"][0]) if present]
    else:
        answer = {"label": classes[said["label"][0]], "confidence": float(said["probabilities"][0, said["label"][0]])}
    print(json.dumps({"path": path, "answer": answer}))
