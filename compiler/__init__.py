"""The front door: DSL, importers, pipelines, artifacts, comparison, reports and the `tw` command."""
