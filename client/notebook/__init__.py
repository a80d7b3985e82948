"""What a data scientist works with: jobs as values, figures as tables and pictures. No coordinator in it.

`wardround.simulate`, `connect` and `plan` compose it with the coordinator's side; see `wardround`.
"""
