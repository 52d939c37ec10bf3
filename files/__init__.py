"""File handling for all packages: files are written completely or not at all, and opened without running their code."""

import installation

installation.check()
