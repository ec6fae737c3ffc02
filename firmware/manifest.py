# Freezes the package into a firmware image, beside what the port itself freezes:
# make BOARD=RPI_PICO_W FROZEN_MANIFEST=path/to/firmware/manifest.py
include("$(PORT_DIR)/boards/manifest.py")
package("natsbridge", opt=3)
