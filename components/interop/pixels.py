"""The layouts that stage `pixels` imports."""

from components.interop.adm import AdmLayout
from components.interop.diffusion import DitLayout, LdmLayout
from components.interop.glide import GlideLayout
from components.interop.layout import Layout
from components.interop.mage import MageLayout

LAYOUTS: tuple[Layout, ...] = (MageLayout(), DitLayout(), AdmLayout(), GlideLayout(), LdmLayout())
