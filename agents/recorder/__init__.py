"""The recorder: MLflow as a view of the population, and the pictures people look at.

Its parts are imported by module (`mlflow_recorder`, `pictures`, `server`, `wording`): MLflow and matplotlib
take seconds to import, and most who come here need one of them only.
"""
