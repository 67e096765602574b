"""The networks in whose features images are compared: FID's Inception, timm's models, or one trained on the spot."""
