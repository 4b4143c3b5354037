"""What an administrator may do: the twelve bits of HS_ADMIN."""

from enum import IntFlag


class Permission(IntFlag):
    """One bit of the permissions of an HS_ADMIN value.

    Source: specs §3.6; Handle.Net 9.3.1.
    """

    ADD_HANDLE = 0x0001
    DELETE_HANDLE = 0x0002
    ADD_DERIVED_PREFIX = 0x0004
    DELETE_DERIVED_PREFIX = 0x0008
    MODIFY_VALUE = 0x0010
    REMOVE_VALUE = 0x0020
    ADD_VALUE = 0x0040
    MODIFY_ADMIN = 0x0080
    REMOVE_ADMIN = 0x0100
    ADD_ADMIN = 0x0200
    READ_VALUE = 0x0400
    LIST_HANDLES = 0x0800


ALL = 0x0FFF
# What the prefix handle gives for what is below it, not a record for itself.
OF_PREFIX = Permission.ADD_HANDLE | Permission.LIST_HANDLES
OF_PARENT = Permission.ADD_DERIVED_PREFIX | Permission.DELETE_DERIVED_PREFIX
