"""Where :mod:`waveflow.atomic` was, for :mod:`waveflow.images.attributes`, which still looks for it here."""

from waveflow.atomic import write_whole as write_whole
