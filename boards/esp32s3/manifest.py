# Freezes NATSBridge and board.py into an image, beside what the port itself freezes:
# make -C ports/esp32 BOARD=ESP32_GENERIC_S3 FROZEN_MANIFEST=path/to/boards/esp32s3/manifest.py
include("$(PORT_DIR)/boards/manifest.py")
package("natsbridge", base_path="../../firmware", opt=3)
module("board.py", base_path="../shared", opt=3)
