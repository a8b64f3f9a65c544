"""Networks of the super-resolver; all of them script, export and trace."""
