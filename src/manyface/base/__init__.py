"""The ground floor: errors, named random streams, computed permutations. Imports nothing of ours."""
