"""From a configuration to a run: resolve, build, loop."""
