"""docs/checkpoints.md, run as it stands."""

import re
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torchvision.transforms import InterpolationMode

from podium.jobs.spec import FullFineTuning, Interpolation, Preprocessing, Resize
from podium.worker.fit import run
from podium.worker.fit.data._reader import squared
from podium.worker.fit.local import LocalContext

PAGE = Path(__file__).resolve().parents[3] / "docs/checkpoints.md"


def test_the_documented_lines_load_a_checkpoint(images, job, tmp_path, monkeypatch, capsys):
    context = LocalContext(tmp_path / "run")
    run(job(images("train"), epochs=1, tuning=FullFineTuning()), context, device=torch.device("cpu"), threads=1)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    saved = context.newest()
    assert saved is not None
    photo = Image.effect_noise((90, 61), 80).convert("RGB")
    photo.save(saved.folder / "photo.jpg")
    monkeypatch.chdir(saved.folder)

    names: dict[str, Any] = {}
    exec(code, names)

    assert re.fullmatch(r"\['class[012]', 'class[012]'\]\n", capsys.readouterr().out)
    for side, resize, interpolation in ((32, "crop", "bilinear"), (33, "crop", "bicubic"), (32, "squash", "bilinear")):
        how = Preprocessing(
            image_size=side,
            crop_fraction=0.9,
            resize=Resize[resize.upper()],
            interpolation=Interpolation[interpolation.upper()],
        )
        names |= {
            "how": {"resize": resize, "crop_fraction": 0.9},
            "side": side,
            "interpolation": InterpolationMode(interpolation),
        }
        for image in (photo, photo.transpose(Image.Transpose.ROTATE_90)):
            assert names["square"](image).tobytes() == squared(image, how).tobytes()
