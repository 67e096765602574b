"""What numbers are called, and what they mean, on every page and in every table."""

NAMES = {
    "fid": "FID",
    "fid_infinity": "FID inf",
    "fd": "FD",
    "fd_infinity": "FD inf",
    "sfid": "sFID",
    "inception_score": "IS",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "kid": "KID x1000",
    "mind": "MIND",
    "cmmd": "CMMD",
    "equivalent_px": "equivalent px",
    "blockiness_ratio": "blockiness / real",
}
OF_EYES = ("blockiness_ratio",)
"""Numbers that need no network."""
OF_NEIGHBORS = ("precision", "recall", "density", "coverage")

MEANINGS = {
    "fid": "Frechet distance in FID's Inception: how far means and covariances are apart. Lower is better.",
    "fid_infinity": "The same, extrapolated to infinitely many pictures of the set; may fall below 0. Lower is better.",
    "fd": "Frechet distance: how far means and covariances are apart in this network. Lower is better.",
    "fd_infinity": "The same, extrapolated to infinitely many pictures of the set; may fall below 0. Lower is better.",
    "sfid": "Frechet distance of features that know where something is in the picture. Lower is better.",
    "inception_score": "Clear and varied at once, by the network's classes. Higher is better; it knows no reference.",
    "precision": "Share of pictures that lie among the real ones. Do they look right?",
    "recall": "Share of real pictures that lie among these. Is nothing left out?",
    "density": "How densely the pictures lie among the real ones; about 1 for real pictures.",
    "coverage": "Share of real pictures with one of these among their nearest neighbors.",
    "kid": "Kernel distance, without bias at any number of pictures: about 0, also below it, for real ones.",
    "mind": "Sliced Wasserstein distance: good from about a thousand pictures on. Lower is better.",
    "cmmd": "Kernel distance of CLIP's embeddings, without bias. Lower is better.",
    "equivalent_px": "To how many pixels real pictures would have to be shrunk to be as far away. Higher is better.",
    "blockiness_ratio": "Steps of color across borders of patches, over those of real pictures; 1 shows no patches.",
}
SCALES = {"kid": 1000}
"""Factor of a number as it is shown; 1 of all others."""


def shown(name: str, value: float) -> str:
    """One number in text, as its name says it."""
    if name in OF_NEIGHBORS:
        return f"{value:.3f}"
    return f"{value * SCALES.get(name, 1):.4g}"
