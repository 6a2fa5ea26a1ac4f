"""`python -m paca_jax.explore`: a page in which a person explores the clusters of a model."""
