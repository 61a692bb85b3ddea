"""The commands of `llbnad`: one file per command, and the options that several share."""
