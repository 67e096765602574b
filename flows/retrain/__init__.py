"""`rcg retrain`: from new images to a judged model, in steps that a kill at any moment only interrupts."""
