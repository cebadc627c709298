"""docs/checkpoints.md, run as it stands."""

import re
from pathlib import Path

import torch

from podium.jobs.spec import FullFineTuning
from podium.worker.fit import run
from podium.worker.fit.local import LocalContext

PAGE = Path(__file__).resolve().parents[3] / "docs/checkpoints.md"


def test_the_documented_lines_load_a_checkpoint(images, job, tmp_path, monkeypatch, capsys):
    context = LocalContext(tmp_path / "run")
    run(job(images("train"), epochs=1, tuning=FullFineTuning()), context, device=torch.device("cpu"), threads=1)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    saved = context.newest()
    assert saved is not None
    monkeypatch.chdir(saved.folder)

    exec(code, {})

    assert set(re.findall(r"class\d", capsys.readouterr().out)) <= {"class0", "class1", "class2"}
