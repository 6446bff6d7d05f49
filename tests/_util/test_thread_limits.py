"""The number of threads follows the size of the work, and a command restores it."""

import torch

from pyro_vae._util.threads import limit_threads, restored_threads
from pyro_vae.cli import main


def test_small_work_takes_one_thread_and_large_work_keeps_all():
    before = torch.get_num_threads()
    with restored_threads():
        torch.set_num_threads(4)
        limit_threads(torch.nn.Linear(2000, 2000), 128)
        assert torch.get_num_threads() == 4
        limit_threads(torch.nn.Linear(10, 32), 128)
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_a_command_restores_the_number_of_threads(tmp_path):
    x = torch.randn(60, 3).numpy()
    data = tmp_path / "x.csv"
    data.write_text("a,b,c\n" + "\n".join(",".join(map(str, row)) for row in x.tolist()) + "\n")
    with restored_threads():
        torch.set_num_threads(3)
        assert main(["train", f"--data={data}", "--epochs=1", f"--run-dir={tmp_path / 'run'}", "--quiet"]) == 0
        assert torch.get_num_threads() == 3
