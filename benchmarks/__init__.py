"""Speed, as ratios of medians of interleaved runs against a peer on the same data in the same run."""
