"""The representation diffusion model: generates representations; a class label may condition it."""

from components.rdm.generator import Rdm, RdmConfig, load_rdm, save_rdm

__all__ = ["Rdm", "RdmConfig", "load_rdm", "save_rdm"]
