"""Whether a challenger becomes the champion: measured, decided, recorded, carried out; a kill loses nothing."""
