"""The recorder: MLflow as a view of the population, and the pictures people look at."""
