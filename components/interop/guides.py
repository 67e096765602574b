"""The layouts that stage `guide` imports."""

from components.interop.adm import AdmClassifierLayout
from components.interop.layout import Layout

LAYOUTS: tuple[Layout, ...] = (AdmClassifierLayout(),)
