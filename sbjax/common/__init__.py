"""What every room uses: names and import paths, options that describe themselves, whole files, devices, hosts."""
