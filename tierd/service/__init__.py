"""The daemon: GLib loop, engine thread, D-Bus, journal and service manager."""
