"""The layouts that stage `rdm` imports."""

from components.interop.layout import Layout
from components.interop.priors import CorgiLayout, UnclipLayout
from components.interop.rdm import RdmLayout

LAYOUTS: tuple[Layout, ...] = (RdmLayout(), CorgiLayout(), UnclipLayout())
