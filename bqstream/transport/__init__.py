"""The only sockets: frames in and out, through one engine or another; ``base`` says what an engine does."""
