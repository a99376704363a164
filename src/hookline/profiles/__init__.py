"""How platforms speak: the body, headers and defaults of each profile."""

from hookline.profiles.base import Profile
from hookline.profiles.standard import StandardProfile

PROFILES: dict[str, Profile] = {profile.name: profile for profile in (StandardProfile(),)}
"""All profiles by name."""

__all__ = ["PROFILES", "Profile"]
