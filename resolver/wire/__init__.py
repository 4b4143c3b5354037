"""Codecs of the Handle protocol: bytes in, values out."""

from resolver.wire._records import (
    AdminRecord,
    DsaPublicKey,
    Interface,
    OpaqueKey,
    PublicKey,
    RsaPublicKey,
    Server,
    SiteInfo,
    address_from_text,
    public_key_from_wire,
    references_from_wire,
    references_to_wire,
)

__all__ = [
    "AdminRecord",
    "DsaPublicKey",
    "Interface",
    "OpaqueKey",
    "PublicKey",
    "RsaPublicKey",
    "Server",
    "SiteInfo",
    "address_from_text",
    "public_key_from_wire",
    "references_from_wire",
    "references_to_wire",
]
