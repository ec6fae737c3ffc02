"""A board's ntptime, whose server answers, or not."""

host = ""
times = []


def settime():
    times.append(host)
    if host == "nobody.example":
        raise OSError(116)
