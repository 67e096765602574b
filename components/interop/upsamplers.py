"""The layouts that stage `upsampler` imports."""

from components.interop.adm import AdmUpsamplerLayout
from components.interop.glide import GlideUpsamplerLayout
from components.interop.layout import Layout

LAYOUTS: tuple[Layout, ...] = (AdmUpsamplerLayout(), GlideUpsamplerLayout())
