"""What `tw new-pass` writes: files with `$name` where a name goes in (`string.Template`)."""
