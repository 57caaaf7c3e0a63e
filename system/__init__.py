"""Files written whole, tables of text, devices, memory, errors of a command line."""
