"""The training loop, on Lightning Fabric: distribution, averaged weights, checkpoints, logs."""

from waveflow.training.config import TrainerConfig
from waveflow.training.ema import EMA
from waveflow.training.interrupt import Interrupted
from waveflow.training.run_folder import RunFolder
from waveflow.training.run_log import RunLog
from waveflow.training.schedule import learning_rate_factor
from waveflow.training.state import TrainingState
from waveflow.training.trainer import Trainer

__all__ = [
    "EMA",
    "Interrupted",
    "RunFolder",
    "RunLog",
    "Trainer",
    "TrainerConfig",
    "TrainingState",
    "learning_rate_factor",
]
