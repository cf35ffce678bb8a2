"""From a raw prompt table to the prompts a world can show."""
