"""The verbs, as Python functions with typed results; heavy libraries are loaded by the verb that needs them."""
