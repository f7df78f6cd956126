"""A judge of smiles that knows nothing of flows: principal components of real faces, and a support vector machine."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.svm import SVC
from torch import Tensor

from waveflow.data import Images


@dataclass(frozen=True)
class SmileClassifier:
    """Says which faces smile.

    Attributes:
        trained_on: real faces it has learnt from, as many smiling as neutral ones.
    """

    pipeline: Pipeline
    trained_on: int

    @classmethod
    def train(cls, faces: Images, seed: int = 0) -> Self:
        """Learn from all faces of the rarer kind and as many of the other, drawn at random."""
        rng = np.random.default_rng(seed)
        labels = faces.labels.numpy()
        kinds = [np.flatnonzero(labels == kind) for kind in (0, 1)]
        count = min(map(len, kinds))
        chosen = np.concatenate([rng.choice(kind, count, replace=False) for kind in kinds])
        components = min(100, len(chosen) - 1, faces.images[0].numel())
        pca = PCA(components, whiten=True, svd_solver="randomized", random_state=seed)
        pipeline = make_pipeline(pca, SVC(C=2.0))
        return cls(pipeline.fit(_features(faces.images[torch.from_numpy(chosen)]), labels[chosen]), len(chosen))

    def smiling(self, images: Tensor) -> Tensor:
        """Bool (N,) for images uint8 (N, 1, H, W)."""
        return torch.from_numpy(self.pipeline.predict(_features(images)) == 1)


def _features(images: Tensor) -> np.ndarray:
    """Pixels without the brightness and the contrast of their photograph."""
    x = images.cpu().double().flatten(1)
    x = x - x.mean(1, keepdim=True)
    return (x / x.std(1, keepdim=True).clamp_min(1e-6)).float().numpy()
