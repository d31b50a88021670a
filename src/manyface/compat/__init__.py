"""Names and signatures of other projects on top of the heads here; one file per project."""
