"""A picture whenever <name>.take is published to, straight out of the camera's frame buffer.

A file goes the same way: open("picture.jpg", "rb") in place of the frame.
"""

# The hardware: an image with a camera driver (see boards/esp32s3/README.md).
from camera import Camera, FrameSize, PixelFormat

import board
import natsbridge

cam = Camera(pixel_format=PixelFormat.JPEG, frame_size=FrameSize.SVGA)
nc = board.connect()
sub = nc.subscribe(nc.name + ".take")
while True:
    sub.next()
    frame = cam.capture()  # a memoryview: it is sent in pieces, and never copied
    natsbridge.smartsend("lab.camera", [("picture.jpg", frame, "image")], **board.options(nc))
    frame = None
    cam.free_buffer()
