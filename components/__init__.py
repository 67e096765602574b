"""Plain PyTorch building blocks of RCG. Knows no DVC, Ray, Kubernetes or MLflow: this folder travels in the bundle."""
