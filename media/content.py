"""Whether two files hold the same sound, whatever their names and containers' headers are."""

from __future__ import annotations

import hashlib
from pathlib import Path

from media.demux import Damage, choose_streams, open_media, read_packets
from media.errors import MediaError


def read_sound_hash(path: Path) -> str:
    """SHA-256 over the encoded packets of a file's sound; nothing is decoded.

    Raises:
        MediaError: the file cannot be read, or has no sound.
    """
    digest = hashlib.sha256()
    with open_media(path) as container:
        _, audio = choose_streams(container, path)
        if audio is None:
            raise MediaError(f"{path}: has no sound; give a sound file")
        for packet in read_packets(container, [audio], Damage()):
            digest.update(bytes(packet))
    return digest.hexdigest()
