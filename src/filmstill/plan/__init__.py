"""What a run will need before it starts: memory, operations, time and disk, by arithmetic from its parameters."""
