"""Sets to judge a net on, as users name them: pairs, everyone against everyone, galleries, IJB."""
