from hypothesis import Phase, settings

shared = {"deadline": None, "phases": (Phase.generate, Phase.shrink), "print_blob": False}
settings.register_profile("same", derandomize=True, max_examples=20, **shared)
settings.register_profile("nightly", max_examples=2000, **shared)
settings.load_profile("same")
