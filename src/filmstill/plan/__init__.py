"""What a run will need: memory, operations, time and disk, computed from its parameters before it starts."""
