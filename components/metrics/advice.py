"""What a person has to know before the numbers: what is missing for them to mean anything, and what would mend it."""

FIX = "raise evaluate.train.steps, hold more pictures out, or give evaluate.features more width and pixels"
"""What makes a judge see."""
