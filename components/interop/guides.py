"""The layouts that stage `guide` imports."""

from components.interop.adm import AdmClassifierLayout
from components.interop.glide_clip import GlideClipImageLayout
from components.interop.layout import Layout

LAYOUTS: tuple[Layout, ...] = (AdmClassifierLayout(), GlideClipImageLayout())
