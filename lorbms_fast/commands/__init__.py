"""One module a command of `lorbms-fast`; each holds one function whose signature is the command's options."""
