"""Quality of representations: classes and clusters from posterior means, and disentanglement."""
