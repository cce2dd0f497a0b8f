"""The analyst: verdicts on hypotheses, lessons of candidates, and the notes of a run.

`analyst.Analyst` does the work, and brings LangGraph along; the other modules are light.
"""
