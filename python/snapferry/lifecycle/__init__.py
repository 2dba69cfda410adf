"""What is kept, and what of the rest is given back: pure decisions over frozen values. Pipelines carry them out."""
