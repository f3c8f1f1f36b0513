"""Reproduction of arXiv 2412.00687: federated learning, differential privacy, secure aggregation.

``import repro`` is light: it loads neither torch, torchvision, medmnist nor triton.
Each subpackage imports what it needs where it needs it.
"""

from repro.version import __version__

__all__ = ["__version__"]
