"""Recording a training step and compiling it."""
