"""The tasks that there are: a name, and where its class and its options stand. Imports no torch."""

TASKS = {"classification": "trunkline.tasks.classification.task:Classification"}
OPTIONS = {"classification": "trunkline.tasks.classification.options:Options"}
