"""Pippin grows a small language model from raw documents to a low-bit chat model (AFM, arXiv 2407.21075)."""

__version__ = "0.1.0"
