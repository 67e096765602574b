"""Plain PyTorch building blocks of RCG. Knows nothing of DVC, Ray, Kubernetes or MLflow: this folder travels in the bundle."""
