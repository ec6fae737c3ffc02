"""The errno module of the board that socket.py imitates: newlib's numbers on an ESP32."""

import os

from uerrno import *

if int(os.getenv("NATSBRIDGE_ROUGH").split(":")[0]) % 2 == 0:
    EADDRINUSE = 112
    ECONNABORTED = 113
    ETIMEDOUT = 116
    EHOSTUNREACH = 118
    EINPROGRESS = 119
    EALREADY = 120
    ENOTCONN = 128
