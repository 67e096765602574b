"""RCG as its published code computes it: what our speed is measured against. Slow on purpose, never imported elsewhere.

Frozen encoder and tokenizer in every training step, attention multiplied out, EMA tensor by tensor, the sampler's
schedule rebuilt on every call and the time embedded for every row at every step. The weights are our modules'.
"""
