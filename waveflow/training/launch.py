"""Devices and processes."""

import atexit
import os
from datetime import timedelta
from typing import TYPE_CHECKING

import torch

from waveflow.errors import InputError
from waveflow.training.config import TrainerConfig

if TYPE_CHECKING:
    from lightning.fabric import Fabric

# The other processes wait for the first one while it validates.
PATIENCE = timedelta(hours=2)


def launch(config: TrainerConfig) -> "Fabric":
    """Fabric on the configured device: one process, or those that torchrun or ``fabric run`` started.

    Raises:
        InputError: if CUDA is asked for and there is none, or there are more processes than GPUs.
    """
    # Late, because the import takes seconds.
    from lightning.fabric import Fabric
    from lightning.fabric.strategies import DDPStrategy

    world = int(os.environ.get("WORLD_SIZE", 1)) if torch.distributed.is_torchelastic_launched() else 1
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world)) if world > 1 else 1
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if config.device == "cuda" and not gpus:
        raise InputError("device is cuda, but PyTorch sees no CUDA device here; use auto or cpu")
    accelerator = "cpu" if config.device == "cpu" or not gpus else "cuda"
    if accelerator == "cuda" and local > gpus:
        raise InputError(
            f"{local} processes were started on a machine with {gpus} GPUs; start {gpus}, or use device cpu"
        )

    # `fabric run` names the strategy itself, and has launched the processes when the script begins.
    by_fabric_run = "LT_CLI_USED" in os.environ
    fabric = Fabric(
        accelerator=accelerator,
        devices=local,
        num_nodes=world // local,
        strategy=DDPStrategy(timeout=PATIENCE) if world > 1 and not by_fabric_run else "auto",
        # Fabric's 64-true rounds what the model returns to float32; the run casts model and batches itself.
        precision="bf16-mixed" if config.precision == "bf16-mixed" else "32-true",
    )
    if not by_fabric_run:
        fabric.launch()
    if world > 1:
        atexit.register(_leave_group)
    if accelerator == "cuda":
        # So that seeding reaches the GPU's generator from the start.
        torch.cuda.init()
    return fabric


def _leave_group() -> None:
    # Threads of gloo that are left to the interpreter's end abort the process now and then.
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
