"""The recipes that there are: a name, and where its function stands. Imports no torch."""

RECIPES = {
    "transfer": "trunkline.pipelines.recipes.transfer:transfer",
    "detect": "trunkline.pipelines.recipes.detect:detect",
    "demo": "trunkline.pipelines.recipes.demo:demo",
}
