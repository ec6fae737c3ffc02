"""What strangers call their files, and how many bytes they say these have."""

from __future__ import annotations

import random

#: By what they are after. With those of `thrown` they are 200.
NAMES: dict[str, list[str]] = {
    "of dots": ["", ".", "..", "...", ". .", "..\0", ".. ", ".hidden", "..x", "a..", "." * 300],
    "that lead up": [
        *("../x", "../../etc/passwd", "a/../../b", "..\\x", "..\\..\\x", "..%2fx", "%2e%2e%2fx"),
        *("..%5cx", "..%c0%afx", "....//x", "..;/x", "\uff0e\uff0e\uff0fx", "\u2024\u2024/x"),
        *("..\u2215x", "..\u2044x", "x/..", "dir/../../x", "./../x", "%252e%252e%252fx"),
    ],
    "that are absolute": [
        *("/etc/passwd", "/tmp/x", "//host/share", "\\\\host\\share", "C:\\x", "c:x", "C:/x", "/"),
        *("~", "~root/x", "file:///etc/passwd", "\\\\?\\C:\\x", "\\x", "$HOME/x", "%TEMP%\\x"),
        *("dir/x", "dir\\x", "folder/x", "a/b/c"),
    ],
    "of control characters": [
        *("\0", "a\0b", "a.txt\0.exe", "\n", "a\nb", "\r\n", "a\tb", "\x1b[31mred", "\x1b]0;x\x07"),
        *("\x7f", "\x9b2J", "\x85", "\u2028", "\u2029", "a\x08\x08b", "\x01", "\ufeffx", "\u200b"),
    ],
    "that look like others": [
        *(
            "\u202egpj.exe",
            "\u202dx",
            "\u2066x\u2069",
            "photo\u200b.jpg",
            "phot\u043e.jpg",
            "\uff21",
        ),
        *(
            "E\u0301",
            "\u0301",
            "a\u0301\u0301\u0301",
            "\u00a0",
            "\u3000",
            "①",
            "ß",
            "ﬁ",
            "日本語.png",
        ),
        *(
            "שלום",
            "\U0001f600",
            "\U000e0041",
            "\ud800",
            "a\udfffb",
            "\uffff",
            "é" * 50,
            "İ",
            "\u0131",
        ),
    ],
    "that are devices": [
        *("con", "CON", "NUL", "nul.txt", "aux.tar.gz", "PRN", "COM1", "com9.x", "LPT1", "lpt9."),
        *("COM¹", "con .txt", "CON.", "con:", "CONIN$", "COM0", "a:b", "a.txt:stream", "x::$DATA"),
    ],
    "that are long": [
        *("x" * 255, "x" * 256, "x" * 1024, "x" * 254 + ".jpg", "ü" * 127, "ü" * 128, "ü" * 512),
        *("x" * 99 + "ü", "x" * 95 + "ü.jpg", "😀" * 63, "😀" * 256, "a." + "b" * 500, "日" * 341),
        *("a" * 50 + "." + "b" * 50, "a." * 500, "-" * 300, "x" * 100 + " ." * 60, "e\u0301" * 300),
    ],
    "that programs misread": [
        *("-rf", "--help", "-", "--", "a b", " a", "a ", "a. ", "a.", "*", "?", "[a]", "{a,b}"),
        *(
            "`id`",
            "$(id)",
            ";id",
            "|id",
            "&",
            "'",
            '"',
            "<x>",
            "#",
            "!",
            "%n%s",
            "{0}",
            "\\",
            "\\n",
        ),
    ],
    "that are taken": [
        *("same", "same", "SAME", "same-1", "photo.jpg", "PHOTO.JPG", "photo-1.jpg", "photo.jpg."),
        *(
            "folder",
            "dir",
            "link",
            "dangling",
            "dir-1",
            "link.",
            "same ",
            "same\0",
            "phot\u006f.jpg",
        ),
    ],
    "that are ours": [
        *(".nb-1-1-01234567.part", ".nb-0-deadbeef-01234567.part", "nb-1-1-01234567.part"),
        *(
            f".natsbridge-{'0' * 32}.part",
            f".{'0' * 32}.part",
            "x.part",
            "20260101-000000-m-1.json",
        ),
        *("x.envelope.json", "x.failed.json", "natsbridge.toml", "NATSBRIDGE.TOML", "main.py"),
        *("boot.py", "lib", "__init__.py"),
    ],
}


def thrown(rng: random.Random, n: int) -> list[str]:
    """Names of signs that have a meaning somewhere, as the dice have it."""
    signs = [chr(i) for i in range(0x20)] + list("./\\:~ -_aA*?\"'<>|%0\u200b\u202e\ufeff\u2028é😀")
    return ["".join(rng.choices(signs, k=rng.randint(1, 40))) for _ in range(n)]


#: As they stand in the message; {n}: how many bytes there are. Those that are no lie are not here.
SIZES = {
    "one less": "{n_less}",
    "one more": "{n_more}",
    "0": "0",
    "1": "1",
    "10^9": "1000000000",
    "2^31": str(1 << 31),
    "2^32 + the size": "{n_32}",
    "2^53": str(1 << 53),
    "2^53 + 1": str((1 << 53) + 1),
    "2^63": str(1 << 63),
    "2^64 + the size": "{n_64}",
    "of 400 digits": "9" * 400,
    "of 5,000 digits": "9" * 5000,
    "-1": "-1",
    "the size below 0": "-{n}",
    "-2^63": str(-(1 << 63)),
    "a float": "{n}.0",
    "a half": "{n}.5",
    "with an exponent": "{n}e0",
    "1e999": "1e999",
    "true": "true",
    "false": "false",
    "a text": '"{n}"',
    "an empty text": '""',
    "a list": "[{n}]",
    "an object": '{{"n":{n}}}',
    "NaN": "NaN",
    "Infinity": "Infinity",
    "with a plus sign": "+{n}",
    "with a zero before it": "0{n}",
    "in hexadecimal": "0x{n}",
    "with underscores": "1_000",
    "in Arabic digits": "\u0661\u0660",
    "nothing": "",
}


def size(lie: str, n: int) -> str:
    """How a lie stands in the message."""
    numbers = {"n_less": n - 1, "n_more": n + 1, "n_32": (1 << 32) + n, "n_64": (1 << 64) + n}
    return SIZES[lie].format(n=n, **numbers)
