"""From a recipe, a run or a weights file to a task with its model."""
