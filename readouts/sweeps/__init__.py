"""Many runs: grids, what they would do, the paper's questions."""
