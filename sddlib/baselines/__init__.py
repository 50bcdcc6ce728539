"""Systems to stand SDD against, one a file."""
