"""One attention call: check the arguments, look up or prepare a launch, and run the kernel."""
