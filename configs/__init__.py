"""The configs that come with the package."""
