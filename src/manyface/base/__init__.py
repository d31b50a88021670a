"""The ground floor: errors, random streams, computed permutations. Imports nothing of ours."""
