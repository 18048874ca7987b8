"""What a person runs: recipes, train, evaluate, predict, report, bench and the command line."""
