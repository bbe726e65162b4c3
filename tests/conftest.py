"""What every test shares: one hypothesis profile, without deadlines (a compiled loop is slow once) and the same on every machine;
and services that keep nothing unless a test says where."""
import os

from hypothesis import HealthCheck, settings

os.environ.setdefault("PAGEWALK_DATABASE", "memory:")
settings.register_profile("pagewalk", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pagewalk")
