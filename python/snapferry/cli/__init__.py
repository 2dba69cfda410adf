"""The command line: one file per group of commands, ``main`` only wires. It says things; the engine does them."""
