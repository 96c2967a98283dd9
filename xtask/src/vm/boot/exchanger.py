# Accepts whoever comes, and writes down when.
import _socket, os, time

os.makedirs("/run/lab", exist_ok=True)
listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
listener.bind(("0.0.0.0", 25))
listener.listen(128)

ready = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
ready.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])

with open("/run/lab/accepted", "w", 1) as log:
    while True:
        descriptor, _ = listener._accept()
        log.write("%.2f\n" % time.clock_gettime(time.CLOCK_BOOTTIME))
        os.close(descriptor)
