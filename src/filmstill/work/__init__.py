"""The layer above DVC and Snakemake: the graph and its keys, work folders, the stage runner, fan-out and shards."""
