"""Operation codes and operation flags of the Handle protocol."""

from enum import IntEnum, IntFlag


class Opcode(IntEnum):
    """What a message asks for, or answers.

    Source: RFC 3652 §2.2.2.1, DO-IRP 3.0 (106), Chinese industrial-internet SDKs (2000, 2001).
    """

    RESOLUTION = 1
    GET_SITE_INFO = 2
    CREATE_HANDLE = 100
    DELETE_HANDLE = 101
    ADD_VALUE = 102
    REMOVE_VALUE = 103
    MODIFY_VALUE = 104
    LIST_HANDLES = 105
    LIST_DERIVED_PREFIXES = 106
    RESPONSE_TO_CHALLENGE = 200
    VERIFY_CHALLENGE = 201
    HOME_NA = 300
    UNHOME_NA = 301
    LIST_HOMED_NAS = 302
    SESSION_SETUP = 400
    SESSION_TERMINATE = 401
    SESSION_EXCHANGEKEY = 402
    GET_NEXT_TXN_ID = 1000
    RETRIEVE_TXN_LOG = 1001
    DUMP_HANDLES = 1002
    BACKUP_SERVER = 1003
    LOGIN_ID_SYSTEM_OLD = 2000
    LOGIN_ID_SYSTEM = 2001


class OpFlag(IntFlag):
    """How it is to be done. Source: RFC 3652 §2.2.2.3; RRDG to DNRF of Handle.Net."""

    AUTH = 0x8000_0000  # ask, or answered by, the authoritative server
    CERT = 0x4000_0000  # sign the reply
    ENCR = 0x2000_0000  # encrypt the reply
    RECU = 0x1000_0000  # ask other servers if need be
    CACR = 0x0800_0000  # a cache may sign
    CONT = 0x0400_0000  # more messages of this answer follow
    KPAL = 0x0200_0000  # keep the connection
    PUBL = 0x0100_0000  # public values only
    RRDG = 0x0080_0000  # the reply begins with the digest of the request
    OVRW = 0x0040_0000  # overwrite what exists
    MINT = 0x0020_0000  # choose a suffix
    DNRF = 0x0010_0000  # do not refer to another service
    RECU_AUTH = 0x0000_0004  # of Chinese software
