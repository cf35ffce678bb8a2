"""Where an embedded teacher's clips come from, and who judges them."""
