# Freezes NATSBridge and board.py into an image, beside what the port itself freezes:
# make -C ports/rp2 BOARD=RPI_PICO2_W FROZEN_MANIFEST=path/to/boards/rpi_pico2_w/manifest.py
include("$(BOARD_DIR)/manifest.py")
package("natsbridge", base_path="../../firmware", opt=3)
module("board.py", base_path="../shared", opt=3)
