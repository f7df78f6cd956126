"""What the import of images brings along."""

import subprocess
import sys


def test_images_leave_the_audio_libraries_alone():
    call = [sys.executable, "-c", "import sys, waveflow.images; print('librosa' in sys.modules)"]
    assert subprocess.run(call, capture_output=True, text=True, check=True).stdout == "False\n"
