"""The device of test_tls_trust.py: does what each line says, and prints how that ended."""

import json
import sys
import time

import natsbridge

signed = []


def sign(nonce):
    signed.append(nonce)
    return bytes(64)


def connect(options, sign_it):
    if sign_it:
        options["sign"] = sign
    return natsbridge.connect(**options)


def upload(url, tls):
    return natsbridge.plik_upload(url, "x", b"abc", tls=tls)["size"]


nc = None
print("ready")
while True:
    line = sys.stdin.readline()
    if not line:
        break
    do, *arguments = json.loads(line)
    code = text = ""
    try:
        if do == "connect":
            nc = connect(*arguments)
            text = nc.url
        elif do == "found":  # the servers that the broker named
            end = time.ticks_add(time.ticks_ms(), 10000)
            while len(nc._options["found"]) < arguments[0]:
                nc.poll()
                time.sleep_ms(20)
                if time.ticks_diff(end, time.ticks_ms()) < 0:
                    raise SystemExit
        elif do == "publish":
            try:
                nc.publish("trust", b"x")
                nc.flush()
            except natsbridge.NATSBridgeError:  # it is lost: now it connects again
                nc.publish("trust", b"x")
                nc.flush()
        elif do == "upload":
            text = upload(*arguments)
        elif do == "receive":
            url, message, tls = arguments
            nc.tls = tls
            sub = nc.subscribe("trust.device")
            nc.publish("trust.device", message)
            env = natsbridge.smartreceive(sub.next(5), fileserver_url=url)
            text = len(env["payloads"][0][1])
            sub.unsubscribe()
    except natsbridge.NATSBridgeError as e:
        code = e.code
        text = e.message
    print(json.dumps([code, text, len(signed)]))
