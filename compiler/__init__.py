"""The front door: DSL, importers, pipelines, artifacts, comparison, reports, the `tw` command."""
