"""Measurements refuse at once what they cannot do, and treat both sides alike."""

import pytest
import torch

from benchmarks import gpu_steps


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("options", [[], ["--small"], ["--ways", "ordinary"]])
def test_steps_on_a_gpu_without_one_are_refused(
    options: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_steps, "network_alone", lambda *args: pytest.fail("measures"))
    with pytest.raises(SystemExit):
        gpu_steps.main(options)
    assert "gpu_steps needs a GPU that torch can use; add --small --ways ordinary" in capsys.readouterr().err
