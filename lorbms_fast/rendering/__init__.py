"""Everything that is drawn: sheets of scenes and neighbours, transfers, curves, in one style."""
