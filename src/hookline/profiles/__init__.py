"""How platforms speak: the body, headers and defaults of each profile."""

from hookline.profiles.avvyr import AvvyrProfile
from hookline.profiles.base import Defaults, Format, Profile, read_options
from hookline.profiles.cloudevents import CloudEventsProfile
from hookline.profiles.evolutionx import EvolutionXProfile
from hookline.profiles.frontsystems import FrontSystemsProfile
from hookline.profiles.mail import MailProfile
from hookline.profiles.shipstream import ShipStreamProfile
from hookline.profiles.standard import StandardProfile

_ALL: tuple[Profile, ...] = (
    StandardProfile(),
    CloudEventsProfile(),
    AvvyrProfile(),
    EvolutionXProfile(),
    ShipStreamProfile(),
    FrontSystemsProfile(),
    MailProfile(),
)
PROFILES: dict[str, Profile] = {profile.name: profile for profile in _ALL}
"""All profiles by name."""

__all__ = ["PROFILES", "Defaults", "Format", "Profile", "read_options"]
