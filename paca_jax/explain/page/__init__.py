"""A page in which a person explores the clusters of a model: one HTML file with everything in it."""
