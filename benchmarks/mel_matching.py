"""What matching the mel does to the copies of a vocoder, and to noise that has heard nothing of it.

    python benchmarks/mel_matching.py --data path/to/LJSpeech-1.1

Means over held-out clips, for so many rounds of `MelMatcher`: copies of the model; noise through the model's linear
prediction alone (if it has one), which knows the spectral envelope of the mel; and white noise, from which matching is
Griffin and Lim's algorithm with a mel in place of a spectrogram. The first beside the others is what the model adds.
"""

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

from waveflow.audio import MelMatcher, compare
from waveflow.data import WholeClips, find_clips, split_clips
from waveflow.models import VocoderModel, load_vocoder

COLUMNS = ("stoi", "pesq", "mstft", "mcd", "f0_rmse", "vuv_f1", "log_mel_l1")


def sources(model: VocoderModel) -> dict[str, Callable[[Tensor, torch.Generator], Tensor]]:
    """Waveforms (1, T) that are to be matched to a mel (1, n_mels, frames)."""
    hop = model.mel_config.hop_length

    def white(mel: Tensor, generator: torch.Generator) -> Tensor:
        return 0.05 * torch.randn(1, mel.shape[2] * hop, generator=generator)

    def filtered(mel: Tensor, generator: torch.Generator) -> Tensor:
        return model.whitening.inverse(torch.randn(1, 1, mel.shape[2] * hop, generator=generator), mel)[0][:, 0].float()

    found = {type(model).__name__: lambda mel, generator: model.vocode(mel, generator=generator, match=0)}
    return found | ({} if model.whitening is None else {"noise, filtered": filtered}) | {"white noise": white}


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", help="folder or name (default: the best that ships)")
    parser.add_argument("--clips", type=int, default=6, help="held-out clips (default: 6)")
    parser.add_argument("--rounds", type=int, nargs="+", default=[0, 1, 3, 10])
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_vocoder(options.model).for_inference()
    matcher = MelMatcher(model.mel_config)
    clips = WholeClips(split_clips(find_clips(options.data))[1][: options.clips], model.mel_config)

    print(f"{'':18}{'rounds':>7}" + "".join(f"{name:>11}" for name in (*COLUMNS, "level")))
    for name, source in sources(model).items():
        start = [source(clip["mel"][None], torch.Generator().manual_seed(0)) for clip in clips]
        for rounds in options.rounds:
            rows = []
            for clip, waveform in zip(clips, start, strict=True):
                real, copy = clip["waveform"], matcher(waveform, clip["mel"][None], rounds)[0, : len(clip["waveform"])]
                level = (copy.square().mean() / real.square().mean()).sqrt().item()
                rows.append(compare(real, copy, model.mel_config.sample_rate) | {"level": level})
            cells = [[row[key] for row in rows if row[key] is not None] for key in (*COLUMNS, "level")]
            text = "".join(f"{sum(cell) / len(cell):11.3f}" if cell else f"{'-':>11}" for cell in cells)
            print(f"{name:18}{rounds:7}{text}", flush=True)


if __name__ == "__main__":
    main()
