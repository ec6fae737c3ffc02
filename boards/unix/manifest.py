# Freezes NATSBridge and board.py into the unix port, beside what it freezes itself:
# make -C ports/unix FROZEN_MANIFEST=path/to/boards/unix/manifest.py
include("$(PORT_DIR)/variants/standard/manifest.py")
package("natsbridge", base_path="../../firmware", opt=3)
module("board.py", base_path="../shared", opt=3)
