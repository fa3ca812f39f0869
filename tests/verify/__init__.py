"""The tables of figures that tierd must show, as code. `./dev verify NAME` runs one."""
