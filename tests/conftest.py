"""What every test shares: one hypothesis profile, without deadlines (a compiled loop is slow once) and the same on every machine."""
from hypothesis import HealthCheck, settings

settings.register_profile("pagewalk", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pagewalk")
