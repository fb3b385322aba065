"""How far two sets of logits are apart."""

from __future__ import annotations

import numpy as np

from tome_export.parity.result import Figures

_WORST = float(np.finfo(np.float32).max)  # stands for NaN and infinity, which JSON cannot hold


def compare(found: np.ndarray, wanted: np.ndarray) -> Figures:
    """Both [inputs, classes]; `wanted` is the reference. What is not finite is as wrong as can be."""
    found, wanted = found.astype(np.float64), wanted.astype(np.float64)
    if not (np.isfinite(found).all() and np.isfinite(wanted).all()):
        return Figures(_WORST, _WORST, _WORST, -1.0, 0.0, 0.0, 0.0)
    difference = np.abs(found - wanted)
    span = max(float(np.ptp(wanted)), 1e-30)
    rms = float(np.sqrt((difference**2).mean()))
    norms = np.linalg.norm(found, axis=-1) * np.linalg.norm(wanted, axis=-1)
    cosine = (found * wanted).sum(-1) / np.maximum(norms, 1e-30)
    best = min(5, wanted.shape[-1])
    theirs, ours = (np.argsort(-logits, axis=-1, kind="stable")[:, :best] for logits in (wanted, found))
    shared = [len(set(a) & set(b)) / best for a, b in zip(theirs, ours, strict=True)]
    return Figures(
        max_abs=float(difference.max()),
        mean_abs=float(difference.mean()),
        max_rel=float(difference.max()) / span,
        cosine_min=float(cosine.min()),
        psnr=20 * float(np.log10(span / rms)) if rms > 0 else None,
        top1_agreement=float((theirs[:, 0] == ours[:, 0]).mean()),
        top5_agreement=float(np.mean(shared)),
    )
