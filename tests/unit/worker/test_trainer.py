import subprocess
import sys

import pytest

from podium.worker import trainer as seam
from podium.worker.trainer import TRAINER, check_trainer, trainer_name


def test_training_is_done_by_fit_unless_the_operator_says_otherwise():
    assert "podium.worker.fit" == trainer_name({}) == trainer_name({TRAINER: ""})
    assert "house.mine" == trainer_name({TRAINER: "house.mine"})


def test_fit_has_all_that_is_called_of_a_trainer():
    from podium.worker import fit

    wanted = [name for name in vars(seam.Trainer) if not name.startswith("_")]

    assert ["run", "run_as_rank", "describe", "is_consequence"] == wanted
    assert all(callable(getattr(fit, name)) for name in wanted)


@pytest.mark.parametrize("name", ["no_such_module", "no_such.module", "json.no_such", "..relative"])
def test_a_trainer_that_is_not_there_is_named_with_its_variable(name):
    with pytest.raises(ValueError, match=f"^{TRAINER}={name}: there is no such module here"):
        check_trainer({TRAINER: name})


def test_to_look_for_the_trainer_imports_no_torch():
    code = (
        "import sys; from podium.worker.trainer import check_trainer; check_trainer(); sys.exit('torch' in sys.modules)"
    )

    assert 0 == subprocess.run([sys.executable, "-c", code], check=False).returncode
