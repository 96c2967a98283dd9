# Hammers connect(), and writes down when each attempt began and what came of it. Only modules that are built in or
# small: what takes long to start would not be early.
import _socket, errno, os, time

os.makedirs("/run/lab", exist_ok=True)
with open("/run/lab/attempts", "w", 1) as log:
    while True:
        began = time.clock_gettime(time.CLOCK_BOOTTIME)
        attempt = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
        attempt.settimeout(1)
        try:
            attempt.connect(("198.51.100.2", 25))
            outcome = "connected"
        except TimeoutError:
            outcome = "timeout"
        except OSError as error:
            outcome = errno.errorcode[error.errno]
        attempt.close()
        log.write("%.2f %s\n" % (began, outcome))
        time.sleep(0.005)
