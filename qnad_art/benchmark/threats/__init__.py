"""One defended network under attack: the victim, the threat ladder, and the scoring."""
