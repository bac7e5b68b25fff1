"""The peers: one small adapter for each framework makes contenders of q, k and v in the layout that it likes best.

A framework is imported when its contender is made; what is missing or refuses raises, and is told in the report.
"""
