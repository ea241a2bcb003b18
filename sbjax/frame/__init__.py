"""What an experiment is: its protocol, typed sections, arms and workdir. Only here is a configuration read."""
