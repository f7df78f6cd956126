"""What a run was trained on, kept beside its state, so that a resumed run says where it differs."""

import json
import logging
from pathlib import Path
from typing import Any

from waveflow.atomic import write_whole
from waveflow.data import ImageSet
from waveflow.training.image_arguments import ImageArguments
from waveflow.training.image_data import path_of
from waveflow.training.resume import list_differences

logger = logging.getLogger("waveflow")

# Flags that change what is learnt and are neither settings of the trainer nor fields of the model.
_FLAGS = ("data", "size", "channels", "binary", "flips", "conditional", "penalty")


def describe_data(args: ImageArguments, images: ImageSet) -> dict[str, Any]:
    """The flags that name, change and weigh the images, and how many there are, as plain values."""
    parts = {"training": images.train, "validation": images.validation, "test": images.test}
    return {
        **{name: getattr(args, name) for name in _FLAGS if hasattr(args, name)},
        "path": path_of(args),
        **{f"{name}_images": len(part) for name, part in parts.items()},
    }


class DataRecord:
    """The record of a run.

    Args:
        path: JSON file that it is compared with, if there, and written to.
        present: :func:`describe_data` of what is trained on now.
    """

    def __init__(self, path: Path, present: dict[str, Any]):
        self.path, self.present = path, present

    def differences(self) -> str:
        """What differs from the file, in words; empty where nothing does or there is none; damage is warned about.

        Raises:
            OSError: if the file cannot be read.
        """
        if not self.path.exists():
            return ""
        try:
            before = json.loads(self.path.read_bytes())
        except ValueError:
            before = None
        if not isinstance(before, dict):
            logger.warning("%s is damaged: what this run was trained on before is not known", self.path)
            return ""
        return list_differences(before, self.present)

    def save(self) -> None:
        """Write it to its file, whole or not at all.

        Raises:
            OSError: if it cannot be written.
        """
        write_whole(self.path, (json.dumps(self.present, indent=2) + "\n").encode())
